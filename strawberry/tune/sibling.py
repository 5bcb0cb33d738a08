"""The narrower model on which a wide recipe is tuned."""

from __future__ import annotations

from typing import Any, Final

from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.recipe import patch
from strawberry.recipe.growth import sizes
from strawberry.recipe.spec import Recipe

WIDE: Final = 256
"""Width from which on a narrower sibling is tuned."""
SHARE: Final = 4
"""The width over the sibling's."""


def narrower(recipe: Recipe, width: int | None) -> dict[str, Any]:
    """What makes a recipe its sibling, by path; nothing where the recipe itself is tuned.

    Without a width, a recipe of at least 256 gets a sibling of a quarter, or of the next larger
    width that its heads allow.

    Raises StrawberryError if there is no sibling of the width that was asked for.
    """
    own = recipe.model.n_embd
    if width is not None:
        if width > own:
            raise StrawberryError(f"--width: {width} is wider than the recipe, which has {own}")
        return {} if width == own else _built(recipe, width)
    if own < WIDE:
        return {}
    for each in range(own // SHARE, own // 2 + 1):
        try:
            return _built(recipe, each)
        except StrawberryError:
            continue
    return {}


def _built(recipe: Recipe, width: int) -> dict[str, Any]:
    """The same, once it is known that the sibling can be built."""
    changed = sizes(recipe, width)
    try:
        build(patch(recipe, changed), "meta")
    except StrawberryError as error:
        reason = str(error).splitlines()[0]
        raise StrawberryError(f"--width: there is no sibling of width {width}: {reason}") from error
    return changed
