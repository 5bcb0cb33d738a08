"""Words that a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` was probably meant to be, or None."""
    known = {candidate.lower(): candidate for candidate in sorted(set(names), reverse=True)}
    match = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return known[match[0]] if match else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing if no name is near."""
    match = closest(name, names)
    return f"; did you mean {match!r}?" if match is not None else ""
