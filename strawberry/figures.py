"""Numbers as people read them: sizes, large numbers, times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

MISSING = "-"


def number(value: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """Format a number; a missing one is a dash."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:{'+' if sign else ''}.{digits}f}"


def short(value: float | None) -> str:
    """Format a large number in thousands, millions, ..."""
    if value is None:
        return MISSING
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000 or unit == "P":
            return f"{value:.0f}" if not unit else f"{value:.3g}{unit}"
        value /= 1000
    raise AssertionError


def span(seconds: float) -> str:
    """Format a remaining time: `in 50 s`, `in 41 min`, `in 2.5 h`, `done`."""
    if seconds <= 0:
        return "done"
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            value = seconds / size
            return f"in {value:.1f} h" if unit == "h" else f"in {max(1.0, value):.0f} {unit}"
    return f"in {seconds / 86400:.1f} days"


def readable(number: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.4g} TiB"


def eta(seconds: float, done: int, left: int) -> str:
    """Time for what is left at the pace so far, `H:MM:SS` or `M:SS`; a dash before any is done."""
    if done <= 0:
        return MISSING
    minutes, rest = divmod(round(seconds / done * left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def preformatted(text: str) -> str:
    """A text as HTML, with its line breaks."""
    return f"<pre>{escape(text)}</pre>"


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts as HTML."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    lines = "".join(f"<tr>{cells}</tr>" for cells in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
