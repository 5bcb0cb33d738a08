"""The words of a recipe at each place: fixed ones, and those of the kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

from strawberry.plugin.kinds import ComponentKind, Kinds
from strawberry.plugin.words import did_you_mean
from strawberry.recipe.fields import ModelFields, RecurFields, TrainFields


class Word(NamedTuple):
    """A key of a recipe other than a component: its meaning, and the default."""

    meaning: str
    absent: str = ""


RECIPE: Final = {
    "name": Word("names runs and their folders: at most 100 letters, no `/`", "the file's name"),
    "seed": Word("a whole number; `auto` draws one and records it", "`1337`"),
    "extends": Word("the recipe to start from: its name, or its path relative to this file"),
    "set": Word("changes to the extended recipe, by path as with `--set`: `model.stack[0].router`"),
    "requires": Word("distributions that must be installed: `strawberry-silia>=0.1`", "none"),
    "scale": Word(
        "how sizes grow in a ladder: for a path, the power of the width that it follows",
        "at constant aspect",
    ),
    "model": Word("the architecture: see below", "must be there"),
    "train": Word("length, batch, learning rate, device: see below", "all defaults"),
}
ENTRY: Final = {
    "repeat": Word("number of copies, with separate weights"),
    "recur": Word("number of steps over the same weights"),
    "stack": Word("the entries inside"),
}
STACK: Final = Word("the blocks", "must be there")
FILE_KEYS: Final = ("extends", "set")
"""The keys for the extended recipe and its changes."""
RECUR = tuple(item.name for item in dataclasses.fields(RecurFields))


def recipe_keys(kinds: Kinds) -> set[str]:
    """The keys of a recipe, except those that say what it extends."""
    return {*RECIPE, *kinds.keys("recipe")} - {*FILE_KEYS}


def model_keys(kinds: Kinds) -> set[str]:
    """The keys of the `model` section."""
    plain = {item.name for item in dataclasses.fields(ModelFields)}
    return {"stack", *plain, *kinds.keys("model")}


def entry_keys(kinds: Kinds) -> set[str]:
    """The keys of an entry of a stack."""
    return {*ENTRY, *RECUR, *kinds.keys("block", "entry", "recur")}


def train_keys() -> set[str]:
    """The keys of the `train` section."""
    return {item.name for item in dataclasses.fields(TrainFields)}


def kind_at(steps: Sequence[str | int], kinds: Kinds) -> ComponentKind | None:
    """The kind of the component at a path, or None for a value."""
    match steps:
        case ["model", "stack", *inside, str(word)] if inside:
            return _keyed(word, kinds.at("block", "entry", "recur"))
        case ["model", str(word)]:
            return _keyed(word, kinds.at("model"))
        case [str(word)] | [str(word), int()]:
            return _keyed(word, kinds.at("recipe"))
    path = ".".join(map(str, steps))
    return next((kind for kind in kinds if kind.held == path), None)


def _keyed(word: str, kinds: Sequence[ComponentKind]) -> ComponentKind | None:
    return next((kind for kind in kinds if kind.key == word), None)


def misstep(steps: Sequence[str | int], kinds: Kinds) -> str:
    """The error in a path according to the grammar; "" for none."""
    match steps:
        case ["model", "stack", *inside]:
            words = [step for step in inside if isinstance(step, str) and step != "*"]
            return _unknown(words[:1], entry_keys(kinds), "a stack's entry")
        case ["model", *rest]:
            return _unknown(rest[:1], model_keys(kinds), "the model")
        case ["train", *rest]:
            return _unknown(rest[:1], train_keys(), "train")
    return _unknown(steps[:1], recipe_keys(kinds), "a recipe")


def _unknown(first: Sequence[str | int], known: set[str], what: str) -> str:
    if not first or first[0] in known:
        return ""
    near = did_you_mean(str(first[0]), known) or f"; known: {', '.join(sorted(known))}"
    return f"{what} has no {first[0]!r}{near}"
