"""`python -m skylink`."""

from skylink.cli import main

if __name__ == "__main__":
    main()
