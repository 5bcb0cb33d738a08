"""`python -m strawberry` is `strawberry`."""

from strawberry.cli import main

if __name__ == "__main__":
    main()
