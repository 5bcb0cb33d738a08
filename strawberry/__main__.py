"""`python -m strawberry` runs the command line."""

from strawberry.cli import main

if __name__ == "__main__":
    main()
