"""`python -m korch` is the command `korch`."""

from korch.cli import main

if __name__ == "__main__":
    main()
