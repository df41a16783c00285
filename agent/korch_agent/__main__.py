"""`python -m korch_agent`: the same as the command korch-agent."""

from korch_agent.main import main

if __name__ == "__main__":
    main()
