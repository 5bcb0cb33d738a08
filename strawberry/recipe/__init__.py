"""Recipes: YAML (or the seed project's JSON) in, a resolved and validated `Recipe` out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strawberry.errors import Location, Problem, RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe.seed import is_seed_config, seed_recipe
from strawberry.recipe.spec import Recipe
from strawberry.recipe.tree import Node, merge, parse_path, set_at
from strawberry.recipe.validate import validate
from strawberry.recipe.yaml import parse, read_tree

__all__ = ["Recipe", "load_recipe", "patch"]


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, plugins: Plugins | None = None
) -> Recipe:
    """Read, override, resolve and validate a recipe.

    Args:
        path: a recipe (.yaml), a configuration of the seed project (.json), or a run folder.
        overrides: `model.n_embd=128` and the like, applied in order; values are YAML.
        plugins: what names are resolved with; None loads the plugins of this environment.

    Raises:
        RecipeError: with every problem found, each located.
        StrawberryError: there is no such file.
    """
    source = Path(path)
    if source.is_dir():
        source /= "recipe.yaml"
    tree, notes = _resolved(source, ())
    for text in overrides:
        tree = _override(tree, text)
    return validate(tree, source, plugins or Plugins.load(), notes)


def patch(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with these overrides (`path=value`), resolved anew with the same plugins."""
    tree = parse(recipe.to_yaml(), str(recipe.source))
    for text in overrides:
        tree = _override(tree, text)
    return validate(tree, recipe.source, recipe.plugins or Plugins.load(), recipe.notes)


def _resolved(source: Path, above: tuple[Path, ...]) -> tuple[Node, list[str]]:
    """The tree of a file, with what it extends, and notes on how it was understood."""
    tree = read_tree(source)
    if is_seed_config(tree):
        return seed_recipe(tree, source.stem)
    base = tree.get("extends")
    if base is None:
        return tree, []
    value = {key: node for key, node in tree.value.items() if key != "extends"}
    tree = Node(value, tree.location, tree.keys)
    if not isinstance(base.value, str):
        message = "expected the path of a recipe, relative to this one"
        raise RecipeError([Problem(message, base.location, "extends")])
    target = source.parent / base.value
    chain = (*above, source)
    if target.resolve() in [file.resolve() for file in chain]:
        names = " -> ".join(str(file) for file in (*chain, target))
        raise RecipeError([Problem(f"extends itself: {names}", base.location, "extends")])
    if not target.is_file():
        raise RecipeError([Problem(f"there is no {target}", base.location, "extends")])
    inherited, notes = _resolved(target, chain)
    inherited.value.pop("name", None)
    return merge(inherited, tree), notes


def _override(tree: Node, text: str) -> Node:
    """The tree after `--set path=value`; places in the value are those of the command line."""
    label = f"--set {text}"
    path, equals, value = text.partition("=")
    if not equals or not path:
        message = "an override is path=value, such as model.n_embd=128"
        raise RecipeError([Problem(message, Location(label, 1, 1))])
    node = parse(value, label) if value.strip() else Node(None, Location(label, 1, 1))
    return set_at(tree, parse_path(path, Location(label, 1, 1)), node)
