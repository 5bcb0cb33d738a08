"""Plain text to the terminal: never wrapped, never read as markup, coloured only for people."""

from __future__ import annotations

import os
import sys
from typing import TextIO

BOLD, RED, YELLOW, CYAN = "1", "31", "33", "36"


def coloured(stream: TextIO) -> bool:
    """Whether a stream shows colours (https://no-color.org and https://force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style, if the stream (standard output by default) shows colours."""
    if not text or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def write(text: str) -> None:
    """A line, or lines, on standard output."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """A yellow line on standard error."""
    sys.stderr.write(f"{paint('warning:', YELLOW, sys.stderr)} {text}\n")


def fail(text: str, *, located: bool = False) -> None:
    """An error on standard error; one that begins with its location is left as it is."""
    lines = text.splitlines() or ["unknown error"]
    if not located:
        lines[0] = f"{paint('error:', RED, sys.stderr)} {lines[0]}"
    sys.stderr.write("\n".join(lines) + "\n")
