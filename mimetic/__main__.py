"""`python -m mimetic`, the same as the command `mimetic`."""

from mimetic.cli import main

if __name__ == "__main__":
    main()
