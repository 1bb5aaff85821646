"""``python -m rapidin`` is the command line."""

from rapidin.cli import main

if __name__ == "__main__":
    main()
