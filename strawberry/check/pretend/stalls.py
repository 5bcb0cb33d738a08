"""Records of host synchronisation, and the line that caused each."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, NamedTuple

import torch

Kind = Literal["read", "copy", "float64"]

WORDS: Final[dict[Kind, str]] = {
    "read": "the host reads from the device",
    "copy": "a copy of unpinned memory to the device",
    "float64": "a float64 tensor, which MPS can't hold",
}

_SKIPPED: Final = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<frozen ")
"""Files that are never blamed: torch's, and this project's machinery."""


_ENTRY: Final = re.compile(r'\s*File "(?P<file>.*)", line (?P<line>\d+), in (?P<function>\S+)')
"""An entry of a traceback, as Python prints it."""


class CodeLine(NamedTuple):
    """A line of a function, by its qualified name."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Stall:
    """An operation that stalls an accelerator, or that some accelerators don't support.

    Attributes:
        kind: `read`: the host waits for a value. `copy`: the host waits while unpinned memory, or a
            Python object, is copied to the device. `float64`: a tensor that MPS doesn't support.
        operator: the torch operator.
        stack: the call stack, innermost first, without torch's lines. In a backward pass under
            anomaly mode, the lines of the forward pass come before those that started it.
    """

    kind: Kind
    operator: str
    stack: tuple[CodeLine, ...]

    @property
    def place(self) -> str:
        """`file:line` of the innermost line outside torch."""
        return f"{self.stack[0].file}:{self.stack[0].line}" if self.stack else "torch"

    def within(self, *functions: str) -> bool:
        """Return whether one of these functions was on the stack, such as `Session.save`."""
        return any(place.function in functions for place in self.stack)

    def __str__(self) -> str:
        return f"{self.place}: {WORDS[self.kind]} ({self.operator})"


class Stalls:
    """The recorded stalls, in order."""

    def __init__(self) -> None:
        self._found: list[Stall] = []

    def __iter__(self) -> Iterator[Stall]:
        return iter(list(self._found))

    def __len__(self) -> int:
        return len(self._found)

    def note(self, kind: Kind, operator: str) -> None:
        """Record the operation of the caller's caller."""
        self._found.append(Stall(kind, operator, tuple(_stack(sys._getframe(1)))))  # noqa: SLF001

    def take(self) -> list[Stall]:
        """Return the stalls so far, and clear them."""
        taken, self._found = self._found, []
        return taken

    def put_back(self, stalls: Iterable[Stall]) -> None:
        """Insert earlier stalls in front."""
        self._found[:0] = stalls

    def counts(self, *kinds: Kind) -> dict[str, int]:
        """Number of stalls of each line, of these kinds or of all; most frequent first."""
        lines = Counter(str(stall) for stall in self if not kinds or stall.kind in kinds)
        return dict(lines.most_common())


def is_outside(file: str) -> bool:
    """Return whether a file is neither torch's nor this project's machinery."""
    return not file.startswith(_SKIPPED)


def _stack(frame: FrameType | None) -> Iterator[CodeLine]:
    while frame is not None:
        code = frame.f_code
        if is_outside(code.co_filename):
            yield CodeLine(code.co_filename, frame.f_lineno, code.co_qualname)
        elif code.co_name == "_engine_run_backward":
            yield from _forward()
        frame = frame.f_back


def _forward() -> Iterator[CodeLine]:
    """The forward lines of the operation being differentiated, if anomaly mode recorded them."""
    node: Any = torch._C._current_autograd_node()  # noqa: SLF001 (torch's hooks use it too)
    entries = [] if node is None else node.metadata.get("traceback_", ())
    for entry in reversed(entries):
        frame = _ENTRY.match(entry)
        if frame is not None and is_outside(frame["file"]):
            yield CodeLine(frame["file"], int(frame["line"]), frame["function"])
