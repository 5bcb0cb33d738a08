"""The randomness that a plan's seeds vary: initial weights, data order, dropout."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, get_args

from strawberry.errors import Location, Problem, RecipeError, StrawberryError
from strawberry.plugin.words import did_you_mean
from strawberry.recipe.seeds import Randomness, seed_of
from strawberry.recipe.spec import Recipe

VARIED: tuple[Randomness, ...] = get_args(Randomness)
WORDS = {"init": "initial weights", "data": "data order", "dropout": "dropout"}


def read_varied(given: Any, place: Location | None = None) -> tuple[Randomness, ...]:
    """Parse `init,data` or a list; the result has the order of `VARIED`.

    Raises RecipeError, at `place` if given.
    """
    words = [word.strip() for word in given.split(",")] if isinstance(given, str) else given
    message = ""
    if not isinstance(words, (list, tuple)) or not words:
        message = f"expected some of {', '.join(VARIED)}, got {given!r}"
    else:
        for word in words:
            if word not in VARIED:
                hint = did_you_mean(str(word), VARIED)
                message = f"expected some of {', '.join(VARIED)}, got {word!r}{hint}"
                break
    if message:
        raise RecipeError([Problem(message, place, "vary_seed")])
    return tuple(part for part in VARIED if part in words)


def held(varied: Collection[str], base: Recipe) -> dict[str, int]:
    """The seeds that stay fixed in every trial, by path."""
    return {f"train.{part}_seed": seed_of(base, part) for part in VARIED if part not in varied}


def check_varied(varied: Collection[str], recipe: Recipe) -> None:
    """Raises StrawberryError if a recipe fixes a seed that should vary."""
    for part in VARIED:
        own = getattr(recipe.train, f"{part}_seed")
        if part in varied and own is not None:
            raise StrawberryError(
                f"train.{part}_seed: is {own} in every trial, but vary_seed includes {part!r}; "
                "set it to null, or leave it out of vary_seed"
            )


def check_effect(varied: Collection[str], recipe: Recipe) -> None:
    """Raises RecipeError, located, if all seeds would be the same run.

    Seeds may not change the rows of some data, and a model may draw no random numbers in training.
    Both are tested unless initial weights vary.
    """
    if "init" in varied:
        return
    why = []
    if "data" in varied:
        if _rows_differ(recipe):
            return
        why.append(recipe.data.at.problem("", "has the same training rows for every seed"))
    if "dropout" in varied:
        if _draws(recipe):
            return
        still = f"is {recipe.model.dropout:g}, and the model draws no random numbers in training"
        why.append(recipe.model.at.problem("dropout", still))
    same = f"vary_seed: all seeds would be the same run, because only {' and '.join(varied)} varies"
    raise RecipeError([replace(problem, message=f"{problem.message}; {same}") for problem in why])


def _rows_differ(recipe: Recipe) -> bool:
    """Return whether another seed changes the training rows of the first steps."""
    from strawberry.data import open_dataset

    dataset, seed, count = open_dataset(recipe), seed_of(recipe, "data"), 16
    one, other = (
        dataset.rows("train", 0, count, block_size=recipe.model.block_size, seed=s)
        for s in (seed, seed + 1)
    )
    return any((a != b).any() for a, b in zip(one, other, strict=True))


def _draws(recipe: Recipe) -> bool:
    """Return whether the model draws random numbers in a training pass over a row."""
    from strawberry.data import open_dataset
    from strawberry.model.build import build
    from strawberry.recipe import patch
    from strawberry.runs import randomness
    from strawberry.runs.device import machine_for
    from strawberry.training.batches import Batches
    from strawberry.training.documents import separator
    from strawberry.training.engine import Engine

    recipe = patch(recipe, {"train.batch_size": 1, "train.gradient_accumulation_steps": 1})
    machine = machine_for(recipe)
    engine = Engine(build(recipe, machine.device).train())
    dataset = open_dataset(recipe)
    engine.model.separator = separator(recipe, dataset)
    batches = Batches(dataset, recipe, machine.device)
    before = randomness.numbers(), randomness.tensors()
    try:
        ((x, y),) = batches.train(0)
        with machine.autocast():
            engine.loss(x, y, engine.divisor([y])).total.backward()  # type: ignore[no-untyped-call]
        after = randomness.numbers(), randomness.tensors()
    finally:
        batches.close()
        randomness.restore(*before)
    same = (bool((after[1][name] == state).all()) for name, state in before[1].items())
    return before[0] != after[0] or not all(same)


def sentence(varied: Collection[str]) -> str:
    """The noise that the intervals cover, in a sentence."""
    others = [WORDS[part] for part in VARIED if part not in varied]
    text = f"Seeds vary {', '.join(WORDS[part] for part in VARIED if part in varied)}"
    return f"{text}; {' and '.join(others)} come from the recipe." if others else f"{text}."
