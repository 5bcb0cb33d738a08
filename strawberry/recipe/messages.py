"""Validation errors in a person's words."""

from __future__ import annotations

from typing import Any

from strawberry.plugin.registry import did_you_mean

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
}
BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def explain(error: Any, what: str) -> str:
    """One of pydantic's errors as `what was expected, what was found`."""
    kind, given = error["type"], error.get("input")
    context = error.get("ctx", {})
    if kind == "missing":
        return f"{what} needs a value for {error['loc'][-1]!r}"
    if kind in EXPECTED:
        return f"expected {EXPECTED[kind]}, got {_show(given)}"
    if kind in BOUNDS:
        key, words = BOUNDS[kind]
        return f"expected {words} {context[key]:g}, got {_show(given)}"
    if kind == "literal_error":
        choices = [c.strip(" '") for c in context["expected"].replace(" or ", ", ").split(",")]
        near = did_you_mean(str(given), choices)
        return f"expected one of {', '.join(choices)}, got {_show(given)}{near}"
    message = str(error["msg"])
    return f"{message[:1].lower()}{message[1:]}, got {_show(given)}"


def _show(value: Any) -> str:
    text = repr(value)
    name = {str: "the text ", bool: "", int: "", float: ""}.get(type(value), "")
    return name + (text if len(text) <= 60 else f"{text[:57]}...")
