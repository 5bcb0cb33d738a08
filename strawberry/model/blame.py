"""Attribute an exception in a forward pass to the plugin component that raised it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.errors import RecipeError, StrawberryError
from strawberry.recipe.walk import specs

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe


@contextlib.contextmanager
def blaming(recipe: Recipe) -> Iterator[None]:
    """Turn an exception of a plugin's component into a RecipeError at its recipe location.

    The innermost such component is blamed. An exception of a built-in component stays unchanged: it
    is a bug of Strawberry, and needs its traceback.
    """
    try:
        yield
    except StrawberryError:
        raise
    except Exception as error:
        theirs = {
            spec.entry.load(): spec
            for spec in specs(recipe, "model", "objective")
            if spec.entry.plugin != "strawberry"
        }
        culprit = None
        trace = error.__traceback__
        while trace is not None:
            spec = theirs.get(type(trace.tb_frame.f_locals.get("self")))
            if spec is not None:
                place = Path(trace.tb_frame.f_code.co_filename).name
                culprit = spec, f"{place}:{trace.tb_lineno}"
            trace = trace.tb_next
        if culprit is None:
            raise
        spec, where = culprit
        text = str(error).strip().partition("\n")[0]
        message = f"{spec.kind} {spec.entry.name!r} raised {type(error).__name__}: {text} ({where})"
        raise RecipeError([spec.problem("", message)]) from error
