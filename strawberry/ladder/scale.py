"""How a recipe grows: from the size that it has to one of so many parameters.

A rule names paths and the power of the width with which each grows. Without one in the recipe
(`scale:`) everything grows alike, so that the aspect stays: width, depth, heads and the inner
widths of mixers and networks by the first power, each head's width not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from strawberry.ablate.fair import parameters as parameters_of
from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.recipe import patch
from strawberry.recipe.spec import ComponentSpec, Recipe, RecurSpec, RepeatSpec
from strawberry.recipe.walk import walk

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

WIDTH: Final = "model.n_embd"
HEADS: Final = ("n_head", "n_kv_head")
INNER: Final = ("n_ffn", "n_qkv")
"""Fields of components that are widths."""
ROUNDED: Final = 8
"""Widths are multiples of this."""
ASPECT: Final = 0.5
"""What an aspect that is off by e counts against a size that is off by e."""
FAR: Final = 0.2
"""How far from its parameters a rung may be, in logarithms, before it is refused."""


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


def without_embeddings(model: LanguageModel) -> int:
    """Unique parameters of a model, token embedding and head aside."""
    tables = {p: p.numel() for p in (model.embedding.weight, model.head_weight)}
    return parameters_of(model) - sum(tables.values())


def rule(recipe: Recipe) -> dict[str, float]:
    """By path, the power with which it grows: the recipe's own rule, or the default."""
    if not recipe.scale:
        return dict.fromkeys((WIDTH, *_default(recipe)), 1.0)
    spread: dict[str, float] = {}
    for path, power in recipe.scale.items():
        found = list(_matching(recipe, path))
        if not found:
            raise StrawberryError(f"{recipe.source}: scale.{path}: there is no number to grow")
        spread |= dict.fromkeys(found, power)
    return spread


def _numbers(recipe: Recipe) -> Iterator[tuple[str, int]]:
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
    for path, _ in _numbers(recipe):
        if path.rsplit(".", 1)[1] in (*HEADS, *INNER, "repeat"):
            yield path


def _matching(recipe: Recipe, path: str) -> Iterator[str]:
    """The paths that one with `*` stands for; itself if it has none."""
    head, star, tail = path.partition("*")
    for known, _ in _numbers(recipe):
        inside = known.startswith(head.rstrip(".")) and known.endswith(f"]{tail}")
        if known == path or (star and inside):
            yield known


def unit(recipe: Recipe, powers: Mapping[str, float]) -> int:
    """The width's least step: the one by which all heads stay whole, or a multiple of 8."""
    heads = [value for path, value in _numbers(recipe) if path.rsplit(".", 1)[1] in HEADS]
    width = recipe.model.n_embd
    grown = [path for path in powers if path.rsplit(".", 1)[1] in HEADS]
    if not heads:
        return math.gcd(width, ROUNDED)
    if grown:
        return width // math.gcd(width, reduce(math.gcd, heads))
    return math.lcm(math.gcd(width, ROUNDED), reduce(math.lcm, heads) * 2)


def grown(recipe: Recipe, growth: Growth) -> dict[str, Any]:
    """What to change in a recipe so that it is so much larger; by path."""
    powers, changed = rule(recipe), {}
    for path, value in _numbers(recipe):
        if path not in powers or not powers[path]:
            continue
        name = path.rsplit(".", 1)[1]
        counted = name not in (*HEADS, *INNER) and path != WIDTH
        size = value * (growth.depth if counted else growth.width) ** powers[path]
        rounded = round(size / ROUNDED) * ROUNDED if name in INNER else round(size)
        changed[path] = max(1, rounded)
    return changed


def grow(recipe: Recipe, parameters: float, least: Growth | None = None) -> Growth:
    """The growth that brings a recipe nearest to so many parameters, embeddings aside.

    It is neither narrower nor shallower than `least`. Raises StrawberryError if none comes near,
    with what the recipe could say.
    """
    powers = rule(recipe)
    have = without_embeddings(build(recipe, "meta"))
    if abs(parameters / have - 1) < 1e-9:
        return Growth(1.0, 1.0, have)
    step, width = unit(recipe, powers), recipe.model.n_embd
    best: tuple[float, Growth] | None = None
    for multiple in _widths(width / step, parameters / have):
        factor = multiple * step / width if WIDTH in powers else parameters / have
        for depth in _depths(recipe, powers, factor, parameters / have):
            if least is not None and (factor < least.width or depth < least.depth):
                continue
            try:
                larger = patch(recipe, grown(recipe, Growth(factor, depth, 0)))
                size = without_embeddings(build(larger, "meta"))
            except StrawberryError:  # a width that some component refuses
                continue
            off = abs(math.log(size / parameters)) + ASPECT * abs(math.log(depth / factor))
            if best is None or off < best[0]:
                best = off, Growth(factor, depth, size)
    if best is None or abs(math.log(best[1].parameters / parameters)) > FAR:
        near = "nothing can be built" if best is None else f"the nearest has {best[1].parameters:,}"
        raise StrawberryError(
            f"{recipe.name}: can't grow to {parameters:,.0f} parameters without embeddings: "
            f"{near}; give it more heads or repeats to grow by, or a `scale:` of its own"
        )
    return best[1]


def _widths(base: float, ratio: float) -> range:
    """Multiples of the width's step that may do: from depth alone to width alone."""
    ends = [base * ratio**power for power in (0.0, 0.2, 0.6)]
    return range(max(1, math.floor(min(ends))), math.ceil(max(ends)) + 2)


def _depths(
    recipe: Recipe, powers: Mapping[str, float], factor: float, ratio: float
) -> Iterator[float]:
    """Factors of depth, at which the first repeat is whole: near the width's, and the parameters'.

    Parameters grow as the depth and the square of the width.
    """
    counts = [
        value
        for path, value in _numbers(recipe)
        if powers.get(path) and path.endswith((".repeat", ".recur"))
    ]
    if not counts:
        yield factor
        return
    near, fitting = math.floor(counts[0] * factor), math.floor(counts[0] * ratio / factor**2)
    for count in sorted({near, near + 1, fitting, fitting + 1}):
        if count >= 1:
            yield count / counts[0]
