"""Bounds of numbers on the command line, checked before anything runs or is printed.

An option's annotation has the bounds, as for a recipe's fields:

    top_p: Annotated[float | None, typer.Option(help="..."), Gt(0), Le(1)] = None
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, TypeAlias, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge, Gt, Le, Lt

Bound: TypeAlias = Ge | Gt | Le | Lt
Counted: Final = Le(2**31 - 1)
"""Upper bound of counts."""
Depth: Final = Le(10_000)
"""Upper bound of recursion steps."""


def bounded(command: Any) -> None:
    """Let a typer command, and its subcommands, check numbers when they are read."""
    if command.callback is not None:
        hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
        for param in command.params:
            annotation = hints.get(param.name)
            if is_number(annotation):
                param.callback = _checking(bounds_of(annotation), param.callback)
    for nested in getattr(command, "commands", {}).values():
        bounded(nested)


def is_number(annotation: Any) -> bool:
    """Return whether a parameter is a number, or a list of numbers."""
    if get_origin(annotation) is Annotated:
        return is_number(get_args(annotation)[0])
    return annotation in (int, float) or any(map(is_number, get_args(annotation)))


def bounds_of(annotation: Any) -> list[Bound]:
    """The bounds in an annotation."""
    metadata = getattr(annotation, "__metadata__", ())
    return [item for item in metadata if isinstance(item, (Ge, Gt, Le, Lt))]


def refusal(value: float, bounds: Iterable[Bound]) -> str | None:
    """The reason why a number is out of bounds, or None."""
    if not math.isfinite(value):
        return f"expected a finite number, got {value}"
    words, right = [], True
    for bound in bounds:
        word, limit, holds = _read(bound, value)
        words.append(f"{word} {limit:g}" if isinstance(limit, float) else f"{word} {limit}")
        right = right and holds
    return None if right else f"expected {' and '.join(words)}, got {value}"


def _read(bound: Bound, value: Any) -> tuple[str, Any, bool]:
    """A bound in words, its limit, and whether a value is within it."""
    limit: Any
    match bound:
        case Ge(limit):
            return "at least", limit, value >= limit
        case Gt(limit):
            return "above", limit, value > limit
        case Le(limit):
            return "at most", limit, value <= limit
        case Lt(limit):
            return "below", limit, value < limit


def _checking(bounds: Sequence[Bound], then: Callable[..., Any] | None) -> Callable[..., Any]:
    """A parameter callback that rejects values out of bounds."""

    def check(ctx: Any, param: Any, value: Any) -> Any:
        for number in value if isinstance(value, (list, tuple)) else [value]:
            reason = None if number is None else refusal(number, bounds)
            if reason is not None:
                raise typer.BadParameter(reason, ctx=ctx, param=param)
        return value if then is None else then(ctx, param, value)

    return check
