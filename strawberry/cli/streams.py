"""Standard output and error that survive a reader that goes away.

In `strawberry train ... | head -1`, a closed terminal or a descriptor that was never open, output
is lost, but the run continues.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, Final, TextIO

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def survive_readers() -> list[_Output]:
    """Replace standard output and error by streams that survive their readers."""
    for descriptor in (0, 1, 2):
        # A file that is opened later must not get the number of a stream that is closed.
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)
    sys.stdout, out = _stream(1, sys.stdout)
    sys.stderr, err = _stream(2, sys.stderr)
    return [out, err]


class _Output(io.FileIO):
    """A descriptor to write to; `full` is the error of a full disk."""

    full: OSError | None = None

    def write(self, content: Any) -> int:
        """Write text; without a reader drop all further output, on an error only this text."""
        try:
            while (written := super().write(content)) is None:
                select.select([], [self], [])  # somebody made the terminal non-blocking
        except OSError as error:
            if error.errno in _FULL:
                self.full = error
            else:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return len(content)
        return written


def _stream(descriptor: int, given: TextIO | None) -> tuple[TextIO, _Output]:
    """A text stream like the existing one, if there is one."""
    output = _Output(descriptor, "w", closefd=False)
    stream = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=getattr(given, "encoding", None) or "utf-8",
        errors=getattr(given, "errors", None) or "backslashreplace",
        newline="\n" if os.name != "nt" else None,
        line_buffering=descriptor == 2 or output.isatty(),
        write_through=bool(getattr(given, "write_through", False)),
    )
    return stream, output
