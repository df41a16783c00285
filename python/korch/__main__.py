"""`python -m korch` is the command `korch`."""

from korch.cmd.main import main

if __name__ == "__main__":
    main()
