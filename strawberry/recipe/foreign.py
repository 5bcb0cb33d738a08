"""Files of other programs, which plugins read as recipes."""

from __future__ import annotations

from pathlib import Path

from strawberry.errors import PluginError, Problem, RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe.grammar import FILE_KEYS, recipe_keys
from strawberry.recipe.tree import Node

HOOK = "strawberry_recipe_tree"


def read_by_plugin(tree: Node, path: Path, plugins: Plugins) -> tuple[Node, list[str]] | None:
    """The recipe that a plugin reads in a file, and its notes; None if no plugin does.

    Raises:
        RecipeError: several plugins read it, or one can't honour what is in it.
        PluginError: a plugin fails, or answers with something else.
    """
    if not tree.is_map or {"model", "extends"} & tree.value.keys():
        return None
    answers = plugins.ask(HOOK, tree=tree, path=path)
    if len(answers) > 1:
        names = " and ".join(repr(name) for name, _ in answers)
        message = f"plugins {names} both read this file; `--no-plugin NAME` leaves one out"
        raise RecipeError([Problem(message, tree.location)])
    for name, answer in answers:
        match answer:
            case (Node() as recipe, list() as notes):
                return recipe, notes
        message = f"answered {type(answer).__name__}, not a tree and a list of notes"
        raise PluginError(f"plugin {name!r}: {HOOK} {message}")
    return None


def refuse_foreign(tree: Node, plugins: Plugins) -> None:
    """Raises RecipeError, with one line, for a file of another program that no plugin reads."""
    ours = {"model", "extends", "ablate", "ladder"}
    if not tree.is_map or not tree.value or ours & tree.value.keys():
        return
    known = {*recipe_keys(plugins.registry.kinds), *FILE_KEYS}
    unknown = [key for key in tree.value if key not in known]
    if 2 * len(unknown) > len(tree.value):
        message = (
            f"this is not a recipe: it has no `model:`, and of its {len(tree.value)} keys a recipe "
            f"knows {len(tree.value) - len(unknown)}. A plugin may read files of other programs: "
            "`pip install strawberry-original` does so for the original project's JSON"
        )
        raise RecipeError([Problem(message, tree.location)])
