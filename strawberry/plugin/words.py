"""Suggestions for misspelt words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that `name` most likely means, or None."""
    known = {candidate.lower(): candidate for candidate in sorted(set(names), reverse=True)}
    match = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return known[match[0]] if match else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or an empty string if no name is close."""
    match = closest(name, names)
    return f"; did you mean {match!r}?" if match is not None else ""
