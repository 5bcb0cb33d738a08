"""Validation errors in plain words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from strawberry.plugin.words import did_you_mean
from strawberry.recipe.tree import show

EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
}
BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
LENGTHS = {"too_short": ("min_length", "at least"), "too_long": ("max_length", "at most")}


def explain(errors: Iterable[Any], data: Any, what: str) -> dict[tuple[Any, ...], str]:
    """Pydantic's errors as one message for each place in `data`: expected and given.

    Args:
        errors: the result of `ValidationError.errors()`.
        data: the validated data.
        what: its owner, as in `ffn 'swiglu'`.
    """
    places: dict[tuple[Any, ...], list[Any]] = {}
    for error in errors:
        places.setdefault(_place(error, data), []).append(error)
    # A union complains for each of its members: the one that got furthest is the one meant.
    above = {path[:length] for path in places for length in range(1, len(path))}
    return {p: _message(group, what) for p, group in places.items() if p not in above}


def in_words(number: float) -> str:
    """A bound as text: whole numbers with all their digits."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def _place(error: Any, data: Any) -> tuple[Any, ...]:
    """The part of an error's location that exists in the data; the rest names types."""
    path: list[Any] = []
    for step in error["loc"]:
        if (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        ):
            data = data[step]
            path.append(step)
    return tuple(path)


def _message(group: list[Any], what: str) -> str:
    missing = [error["loc"][-1] for error in group if error["type"] == "missing"]
    if missing and isinstance(missing[-1], int):
        return f"expected a list of {missing[-1] + 1}, got {show(group[-1]['input'])}"
    if missing:
        return f"{what} needs {', '.join(repr(name) for name in missing)}"
    given = group[0].get("input")
    expected, near = [], ""
    for error in group:
        text, hint = _expected(error, given)
        expected += [text] if text not in expected else []
        near = near or hint
    if not all(expected):
        message = str(group[0]["msg"])
        return f"{message[:1].lower()}{message[1:]}, got {show(given)}"
    name = "the text " if isinstance(given, str) else ""
    return f"expected {', or '.join(expected)}, got {name}{show(given)}{near}"


def _expected(error: Any, given: Any) -> tuple[str, str]:
    """The expectation of one error, and a suggestion; "" for an unknown error type."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in EXPECTED:
        return EXPECTED[kind], ""
    if kind in BOUNDS:
        key, words = BOUNDS[kind]
        return f"{words} {in_words(context[key])}", ""
    if kind in LENGTHS:
        key, words = LENGTHS[kind]
        return f"a list of {words} {context[key]}", ""
    if kind == "literal_error":
        choices = [c.strip(" '") for c in context["expected"].replace(" or ", ", ").split(",")]
        near = did_you_mean(given, choices) if isinstance(given, str) else ""
        return f"{'one of ' if len(choices) > 1 else ''}{', '.join(choices)}", near
    return "", ""
