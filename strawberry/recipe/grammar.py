"""Which words a recipe has at each place: its own, and those of the kinds that may stand there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from strawberry.plugin.kinds import ComponentKind, Kinds
from strawberry.plugin.words import did_you_mean
from strawberry.recipe.fields import ModelFields, RecurFields, TrainFields

RECUR = tuple(item.name for item in dataclasses.fields(RecurFields))


def recipe_keys(kinds: Kinds) -> set[str]:
    """The keys of a recipe, apart from those that say what it starts from."""
    return {"name", "seed", "requires", "model", "train", *kinds.keys("recipe")}


def model_keys(kinds: Kinds) -> set[str]:
    """The keys of the `model` section."""
    plain = {item.name for item in dataclasses.fields(ModelFields)}
    return {"stack", *plain, *kinds.keys("model")}


def entry_keys(kinds: Kinds) -> set[str]:
    """The keys of an entry of a stack."""
    return {"repeat", "recur", "stack", *RECUR, *kinds.keys("block", "entry", "recur")}


def train_keys() -> set[str]:
    """The keys of the `train` section."""
    return {item.name for item in dataclasses.fields(TrainFields)}


def kind_at(steps: Sequence[str | int], kinds: Kinds) -> ComponentKind | None:
    """The kind of the component that stands at a path, or None where a value does."""
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
    """What is wrong with a path as far as the words of a recipe go; "" if nothing is."""
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
