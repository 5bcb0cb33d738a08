"""`strawberry new`: create a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strawberry.cli.options import Json


def command(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="A kind, such as attention, ffn or tracker.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component in recipes.")],
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder in which the plugin's folder is created.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Create an installable plugin with one working component.

    The plugin has a recipe that uses the component, tests and a CI file. Replace the component by
    your own.
    """
    import shlex

    from strawberry.cli import context
    from strawberry.cli.console import print_json
    from strawberry.cli.terminal import write
    from strawberry.scaffold import new

    created = new(kind, name, folder, context.plugins().registry)
    if as_json:
        print_json({"folder": str(created)})
        return
    write(f"{created}: a plugin with {kind} {name!r} in strawberry_{name}/{name}.py")
    write("next:")
    write(f"  pip install -e {shlex.quote(f'{created}[test]')}")
    write(f"  strawberry build {shlex.quote(str(created / 'recipes' / f'{name}.yaml'))}")
    write(f"  strawberry check {kind}/{name}")
    write(f"  pytest {shlex.quote(str(created))}")
