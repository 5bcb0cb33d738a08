"""The command line: a file a verb. It parses and prints, and decides nothing."""

import os
import sys


def main() -> None:
    """The console script `strawberry`: run the command line and exit with its code."""
    arguments = sys.argv[1:]
    if arguments in ([], ["-h"], ["--help"]) and "_STRAWBERRY_COMPLETE" not in os.environ:
        # The overview needs neither typer nor rich, and answers in a tenth of their import time.
        from strawberry.cli.overview import overview
        from strawberry.cli.terminal import write

        write(overview())
        return
    from strawberry.cli.app import run

    sys.exit(run(arguments))
