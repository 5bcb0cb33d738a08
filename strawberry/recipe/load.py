"""Read a recipe: its file, what it extends, overrides; then validate it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strawberry.errors import Location, Problem, RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe.foreign import read_by_plugin, refuse_foreign
from strawberry.recipe.origin import origin_of
from strawberry.recipe.packaged import by_name, locate
from strawberry.recipe.spec import Recipe
from strawberry.recipe.tree import Node, located, merge, parse_path, set_at, show
from strawberry.recipe.validate import validate
from strawberry.recipe.yaml import parse, read_tree

MAX_CHAIN = 20
MAX_LABEL = 80


def load_recipe(
    path: str | Path,
    overrides: Sequence[str | Setting] = (),
    *,
    plugins: Plugins | None = None,
) -> Recipe:
    """Read, override, resolve and validate a recipe.

    Args:
        path: a recipe (.yaml), a file that a plugin reads as one, a run folder, or the name of a
            packaged recipe, such as `air`.
        overrides: such as `model.n_embd=128`, applied in order; values are YAML. A `Setting` has
            its location in a file.
        plugins: resolve names; None loads the plugins of this environment.

    Raises:
        RecipeError: contains every problem, located.
        StrawberryError: there is no such file, nor a packaged recipe of that name.
    """
    plugins = plugins or Plugins.load()
    source = locate(path, plugins)
    tree, notes, files = _resolved(source, (), plugins)
    tree = _overridden(tree, overrides)
    recipe = validate(tree, source, plugins, notes)
    return replace(recipe, origin=origin_of(files))


def recipe_from(
    content: Node | Mapping[str, Any],
    source: str | Path,
    *,
    plugins: Plugins | None = None,
    notes: Sequence[str] = (),
) -> Recipe:
    """The recipe of what a program made, not of a file.

    Args:
        content: the recipe as plain data, or as a tree whose values have places.
        source: what it comes from, which errors name.
        plugins: resolve names; None loads the plugins of this environment.
        notes: how the content was understood.

    Raises:
        RecipeError: with every problem found.
    """
    tree = located(content, Location(str(source), 1, 1))
    return validate(tree, Path(source), plugins or Plugins.load(), notes)


def patch(recipe: Recipe, overrides: Sequence[str] | Mapping[str, Any]) -> Recipe:
    """Build a recipe again from the source of this one, with further overrides.

    Paths and error locations refer to the file of the original recipe. A drawn seed stays.

    Args:
        recipe: the original, which is not changed.
        overrides: as for `load_recipe`, or plain values by path (`{"model.n_embd": 128}`).

    Raises:
        RecipeError: contains every problem of the new recipe.
    """
    tree = recipe.tree or parse(recipe.to_yaml(), str(recipe.source))
    if (seed := tree.get("seed")) is not None and seed.value == "auto":
        tree = set_at(tree, ["seed"], Node(recipe.seed, seed.location))
    tree = _overridden(tree, overrides)
    patched = validate(tree, recipe.source, recipe.plugins or Plugins.load(), recipe.notes)
    return replace(patched, origin=recipe.origin)


def _resolved(
    source: Path, above: tuple[Path, ...], plugins: Plugins
) -> tuple[Node, list[str], list[Path]]:
    """The tree of a file with what it extends, notes on its interpretation, and the files."""
    tree = read_tree(source)
    if (answer := read_by_plugin(tree, source, plugins)) is not None:
        return *answer, [source]
    refuse_foreign(tree, plugins)
    base = tree.get("extends")
    if base is None:
        if "set" in tree.keys:
            message = "needs `extends`, whose recipe it changes"
            raise RecipeError([Problem(message, tree.keys["set"], "set")])
        return tree, [], [source]
    target = _base(base, source, above, plugins)
    inherited, notes, files = _resolved(target, (*above, source), plugins)
    inherited = Node(_without(inherited, "name"), inherited.location, inherited.keys)
    merged = merge(inherited, Node(_without(tree, "extends", "set"), tree.location, tree.keys))
    return _with_settings(merged, tree.get("set")), notes, [source, *files]


def _with_settings(tree: Node, settings: Node | None) -> Node:
    """The tree with its `set` applied in order; raises RecipeError with every problem."""
    if settings is None or settings.value is None:
        return tree
    if not settings.is_map:
        message = "expected paths as in `--set`, each with a value: {model.stack[0].ffn: swiglu}"
        raise RecipeError([Problem(f"{message}, got {show(settings)}", settings.location, "set")])
    problems: list[Problem] = []
    for path, value in settings.value.items():
        try:
            tree = set_at(tree, parse_path(path, settings.keys[path]), value)
        except RecipeError as error:
            problems += [replace(problem, path=f"set.{path}") for problem in error.problems]
    if problems:
        raise RecipeError(problems)
    return tree


def _base(base: Node, source: Path, above: tuple[Path, ...], plugins: Plugins) -> Path:
    """The file under `extends`, or the packaged recipe of that name; raises RecipeError."""
    chain = (*above, source)
    target = source.parent / base.value if isinstance(base.value, str) else source
    if isinstance(base.value, str) and not target.is_file():
        target = by_name(base.value, plugins) or target
    message = ""
    if not isinstance(base.value, str):
        message = "expected the path of a recipe, relative to this one"
    elif not target.is_file():
        message = f"no such file: {str(target)!r}, nor a packaged recipe of that name"
    elif target.resolve() in [file.resolve() for file in chain]:
        message = f"extends itself: {' -> '.join(str(file) for file in (*chain, target))}"
    elif len(chain) > MAX_CHAIN:
        message = f"extends a chain of more than {MAX_CHAIN} recipes"
    if message:
        raise RecipeError([Problem(message, base.location, "extends")])
    return target


def _without(tree: Node, *keys: str) -> dict[str, Node]:
    return {k: node for k, node in tree.value.items() if k not in keys} if tree.is_map else {}


def _overridden(tree: Node, overrides: Sequence[str | Setting] | Mapping[str, Any]) -> Node:
    """The tree with overrides applied; raises RecipeError with every problem."""
    problems: list[Problem] = []
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_split, overrides)
    for path, value in pairs:
        try:
            tree = _override(tree, path, value)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return tree


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for a recipe path from a file: like an override, but located there."""

    path: str
    value: Node

    def __str__(self) -> str:
        return f"{self.path}={json.dumps(self.value.plain())}"


@dataclass(frozen=True, slots=True)
class _Text:
    """A value in YAML source; None if it is missing."""

    yaml: str | None


def _value(path: str, text: str, label: str) -> Node:
    """The value of an override; for invalid YAML the error says how to write text."""
    if text.lstrip().startswith("*"):  # elsewhere an alias, which can't be meant here
        return Node(text.strip(), Location(label, 1, len(path) + 2))
    try:
        return parse(" " * (len(path) + 1) + text, label)
    except RecipeError as error:
        quoted = shlex.quote(f"{path}={json.dumps(text.strip(), ensure_ascii=False)}")
        hint = f"; quote it if it is text: --set {quoted}"
        raise RecipeError(
            [replace(problem, message=problem.message + hint) for problem in error.problems]
        ) from error


def _split(override: str | Setting) -> tuple[str, Node | _Text]:
    if isinstance(override, Setting):
        return override.path, override.value
    path, equals, value = override.partition("=")
    return path, _Text(value if equals else None)


def _override(tree: Node, path: str, value: Any) -> Node:
    """The tree after `--set path=value`; columns refer to that text."""
    given = value.yaml if isinstance(value, _Text) else value
    label = f"--set {path}" if given is None else f"--set {path}={given}"
    label = (
        ascii(label)[1:-1] if len(label) <= MAX_LABEL else f"{ascii(label[:MAX_LABEL])[1:-1]}..."
    )
    start = Location(label, 1, 1)
    if not path or value == _Text(None):
        message = "an override must be path=value, such as model.n_embd=128"
        raise RecipeError([Problem(message, start)])
    if isinstance(value, Node):
        start = value.location
    steps = parse_path(path, start)
    if not isinstance(value, _Text):
        node = located(value, start)
    elif str(value.yaml).strip():
        node = _value(path, str(value.yaml), label)
    else:
        node = Node(None, start)
    return set_at(tree, steps, node)
