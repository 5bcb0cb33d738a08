"""`strawberry schema`: print the JSON Schema of recipes."""

from strawberry.cli import context
from strawberry.cli.console import print_json


def command() -> None:
    """Print the JSON Schema of recipes, for editors.

    The schema has every registered component and its fields. Write it to a file and name that file
    in the first line of a recipe: `# yaml-language-server: $schema=recipe.schema.json`.
    """
    from strawberry.recipe.schema import json_schema

    print_json(json_schema(context.plugins()))
