"""The growth of a recipe to so many parameters, by its rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Final

from strawberry.ablate.fair import parameters as parameters_of
from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.recipe import patch
from strawberry.recipe.growth import HEADS, ROUNDED, WIDTH, Growth, grown, numbers, rule

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe

ASPECT: Final = 1.0
"""What an aspect that is off by e counts against a size that is off by e; laws know the sizes."""
FAR: Final = 0.2
"""How far from its parameters a rung may be, in logarithms, before it is refused."""


def without_embeddings(model: LanguageModel) -> int:
    """Unique parameters of a model, token embedding and head aside."""
    return parameters_of(model) - sum(p.numel() for p in model.tables())


def unit(recipe: Recipe, powers: Mapping[str, float]) -> int:
    """The width's least step: the one by which all heads stay whole, or a multiple of 8."""
    heads = [value for path, value in numbers(recipe) if path.rsplit(".", 1)[1] in HEADS]
    width = recipe.model.n_embd
    grown = [path for path in powers if path.rsplit(".", 1)[1] in HEADS]
    if not heads:
        return math.gcd(width, ROUNDED)
    if grown:
        return width // math.gcd(width, reduce(math.gcd, heads))
    return math.lcm(math.gcd(width, ROUNDED), reduce(math.lcm, heads) * 2)


def grow(recipe: Recipe, parameters: float, above: int = 0) -> Growth:
    """The growth that brings a recipe nearest to so many parameters, embeddings aside.

    A wider rung may be shallower than the one before: where each had to be as deep, one step of
    depth made the next width too large for every rung above, and all of them grew in depth alone.

    Args:
        recipe: the one to enlarge, by its `scale:` or at constant aspect.
        parameters: the number to come near to.
        above: the parameters of the rung before, which this one must exceed.

    Raises:
        StrawberryError: no size comes near, with what the recipe could say.
    """
    powers = rule(recipe)
    have = without_embeddings(build(recipe, "meta"))
    if abs(parameters / have - 1) < 1e-9:
        return Growth(1.0, 1.0, have)
    step, width = unit(recipe, powers), recipe.model.n_embd
    sizes = []
    for multiple in _widths(width / step, parameters / have):
        factor = multiple * step / width if WIDTH in powers else parameters / have
        for depth in _depths(recipe, powers, factor, parameters / have):
            try:
                larger = patch(recipe, grown(recipe, Growth(factor, depth, 0)))
                size = without_embeddings(build(larger, "meta"))
            except StrawberryError:  # a width that some component refuses
                continue
            if size > above:
                sizes.append(Growth(factor, depth, size))
    return _best(recipe, sizes, parameters)


def _best(recipe: Recipe, sizes: Sequence[Growth], parameters: float) -> Growth:
    """Of sizes near enough to so many parameters, the nearest to them and to the aspect."""

    def off(size: Growth) -> float:
        return abs(math.log(size.parameters / parameters))

    near = [size for size in sizes if off(size) <= FAR]
    if near:
        return min(
            near, key=lambda size: off(size) + ASPECT * abs(math.log(size.depth / size.width))
        )
    nearest = (
        f"the nearest has {min(sizes, key=off).parameters:,}" if sizes else "nothing can be built"
    )
    raise StrawberryError(
        f"{recipe.name}: can't grow to {parameters:,.0f} parameters without embeddings: "
        f"{nearest}; give it more heads or repeats to grow by, or a `scale:` of its own"
    )


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
        for path, value in numbers(recipe)
        if powers.get(path) and path.endswith((".repeat", ".recur"))
    ]
    if not counts:
        yield factor
        return
    near, fitting = math.floor(counts[0] * factor), math.floor(counts[0] * ratio / factor**2)
    for count in sorted({near, near + 1, fitting, fitting + 1}):
        if count >= 1:
            yield count / counts[0]
