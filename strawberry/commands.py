"""Helpers for commands of plugins; imported when the command is used.

`plugins()` returns the plugins of this call of `strawberry`, by its global options; `progress()` is
a context that gives a callback for work on data; the others print. A `StrawberryError` ends the
command with its line and exit code 2.
"""

from strawberry.cli.app import run
from strawberry.cli.console import console, print_json, show, table
from strawberry.cli.context import plugins
from strawberry.cli.progress import shown as progress

__all__ = ["console", "plugins", "print_json", "progress", "run", "show", "table"]
