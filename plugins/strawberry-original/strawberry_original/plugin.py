"""The manifest: what this plugin registers, and which files it reads as recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.plugin import Registrar, hookimpl

if TYPE_CHECKING:
    from strawberry.recipe import Node

strawberry_api = ">=1,<2"


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register the command `strawberry original`."""
    help_text = "Import checkpoints, encoders and data sets of the original project."
    registry.command("original", "strawberry_original.cli:command", help_text)


@hookimpl
def strawberry_recipe_tree(tree: Node) -> tuple[Node, list[str]] | None:
    """The recipe that a configuration of the original project means."""
    if "model_hyperparams" not in tree.value:
        return None
    from strawberry_original.configuration import recipe_tree

    return recipe_tree(tree)
