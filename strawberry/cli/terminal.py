"""Plain text to the terminal: never read as markup, coloured only on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TextIO

BOLD, RED, YELLOW, CYAN = "1", "31", "33", "36"


def coloured(stream: TextIO) -> bool:
    """Return whether a stream shows colours (https://no-color.org and https://force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Style `text`, if the stream (standard output by default) shows colours."""
    if not text or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def write(text: str) -> None:
    """Print lines to standard output."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """Print a warning to standard error; a terminal gets whole words on its lines."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        lines = textwrap.wrap(
            f"warning: {text}", width, break_on_hyphens=False, break_long_words=False
        )
        text = "\n".join(lines).removeprefix("warning: ")
    sys.stderr.write(f"{paint('warning:', YELLOW, sys.stderr)} {text}\n")


def fail(text: str, *, located: bool = False) -> None:
    """Print an error to standard error; one that starts with its location stays unchanged."""
    lines = text.splitlines() or ["unknown error"]
    if not located:
        lines[0] = f"{paint('error:', RED, sys.stderr)} {lines[0]}"
    sys.stderr.write("\n".join(lines) + "\n")
