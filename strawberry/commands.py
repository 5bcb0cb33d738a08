"""What a command that a plugin brings is written with; imported when the command is used.

`plugins()` are those of this call of `strawberry`, as its global options want them; `progress()` is
a context that gives a callback for work on data; the rest prints. What raises a `StrawberryError`
ends with its line and exit code 2.
"""

from strawberry.cli.app import run
from strawberry.cli.console import console, print_json, show, table
from strawberry.cli.context import plugins
from strawberry.cli.progress import shown as progress

__all__ = ["console", "plugins", "print_json", "progress", "run", "show", "table"]
