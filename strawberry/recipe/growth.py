"""How a recipe grows: its sizes at another width or depth.

A rule names paths and the power of the width with which each grows. Without one in the recipe
(`scale:`) everything grows alike, so that the aspect stays: width, depth, heads and the inner
widths of mixers and networks by the first power, each head's width not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from strawberry.errors import StrawberryError
from strawberry.recipe.load import patch
from strawberry.recipe.spec import ComponentSpec, Recipe, RecurSpec, RepeatSpec
from strawberry.recipe.walk import walk

WIDTH: Final = "model.n_embd"
HEADS: Final = ("n_head", "n_kv_head")
INNER: Final = ("n_ffn", "n_qkv")
"""Fields of components that are widths."""
ROUNDED: Final = 8
"""Widths are multiples of this."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How much larger a rung is than the recipe.

    Attributes:
        width: the factor of the width.
        depth: the factor of what counts copies: repeats, recursion steps, experts.
        parameters: of the baseline, embeddings aside.
    """

    width: float
    depth: float
    parameters: int


def rule(recipe: Recipe) -> dict[str, float]:
    """By path, the power with which it grows: the recipe's own rule, or the default."""
    if not recipe.scale:
        return dict.fromkeys((WIDTH, *_default(recipe)), 1.0)
    spread: dict[str, float] = {}
    for path, power in recipe.scale.items():
        paths = list(_matching(recipe, path))
        if not paths:
            raise StrawberryError(f"{recipe.source}: scale.{path}: there is no number to grow")
        spread |= dict.fromkeys(paths, power)
    return spread


def numbers(recipe: Recipe) -> Iterator[tuple[str, int]]:
    """Every whole number of a model that could grow, by its path: sizes and counts."""
    yield WIDTH, recipe.model.n_embd
    for step in walk(recipe):
        if not step.path.startswith("model"):
            continue
        if isinstance(step.spec, (RepeatSpec, RecurSpec)):
            yield (
                f"{step.path}.{'repeat' if isinstance(step.spec, RepeatSpec) else 'recur'}",
                (step.spec.count),
            )
        elif isinstance(step.spec, ComponentSpec):
            for name, value in step.spec.fields.items():
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    yield f"{step.path}.{name}", value


def _default(recipe: Recipe) -> Iterator[str]:
    """The paths that the default rule grows beside the width."""
    for path, _ in numbers(recipe):
        if path.rsplit(".", 1)[1] in (*HEADS, *INNER, "repeat"):
            yield path


def _matching(recipe: Recipe, path: str) -> Iterator[str]:
    """The paths that one with `*` stands for; itself if it has none."""
    head, star, tail = path.partition("*")
    for known, _ in numbers(recipe):
        inside = known.startswith(head.rstrip(".")) and known.endswith(f"]{tail}")
        if known == path or (star and inside):
            yield known


def grown(
    recipe: Recipe, growth: Growth, powers: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """What to change in a recipe so that it is so much larger, by a rule or its own; by path."""
    powers, changed = rule(recipe) if powers is None else powers, {}
    for path, value in numbers(recipe):
        if path not in powers or not powers[path]:
            continue
        name = path.rsplit(".", 1)[1]
        counted = name not in (*HEADS, *INNER) and path != WIDTH
        size = value * (growth.depth if counted else growth.width) ** powers[path]
        rounded = round(size / ROUNDED) * ROUNDED if name in INNER else round(size)
        changed[path] = max(1, rounded)
    return changed


def resized(recipe: Recipe, width: int | None = None, depth: float = 1.0) -> Recipe:
    """The recipe at another width, and with so many times its depth, by its rule.

    Its parametrization is unchanged: see `carried`. Raises StrawberryError if its sizes can't be
    so.

    Args:
        recipe: the recipe.
        width: model width; None for its own.
        depth: the factor of what counts copies of blocks.
    """
    return patch(recipe, sizes(recipe, width, depth))


def sizes(recipe: Recipe, width: int | None = None, depth: float = 1.0) -> dict[str, Any]:
    """What `resized` changes, by path."""
    own = recipe.model.n_embd
    powers = rule(recipe)
    if not powers.get(WIDTH):
        powers = dict.fromkeys((WIDTH, *_default(recipe)), 1.0)
    factor = 1.0 if width is None else (width / own) ** (1 / powers[WIDTH])
    changed = grown(recipe, Growth(factor, depth, 0), powers)
    return {**changed, WIDTH: own if width is None else width}


def carried(wide: Recipe, narrow: Recipe, rate: float) -> dict[str, Any]:
    """What to change in a recipe so that a learning rate found on its sibling holds; by path.

    Args:
        wide: the recipe to train.
        narrow: the sibling on which the rate was found, such as `resized(wide, 64)`.
        rate: the best `train.learning_rate` of the sibling.

    Where both have a parametrization that carries rates over, with the same fields, that is the
    rate alone. `standard` doesn't carry any over; the wide recipe then becomes `mup`, or
    `complete_p` if depths differ, based on the sibling's size, where each equals `standard`.
    Optimizers with an `lr` of their own keep it, and it carries over as well.

    Raises:
        StrawberryError: both differ in their parametrization.
    """
    from strawberry.recipe.unrolled import unrolled_depth

    here, there = (each.model.components["parametrization"] for each in (wide, narrow))
    changed: dict[str, Any] = {"train.learning_rate": rate}
    if here != there:
        message = f"{wide.name} and {narrow.name} differ in their parametrization"
        raise StrawberryError(f"{message}, so no rate of one holds for the other")
    depths = [unrolled_depth(each.model.stack) for each in (wide, narrow)]
    same = wide.model.n_embd == narrow.model.n_embd and depths[0] == depths[1]
    if here.use != "strawberry/standard" or same:
        return changed
    based: dict[str, Any] = {**here.fields, "base_width": narrow.model.n_embd}
    if depths[0] != depths[1]:
        based |= {"base_depth": depths[1]}
    use = "complete_p" if "base_depth" in based else "mup"
    return {"model.parametrization": {"use": f"strawberry/{use}", **based}, **changed}
