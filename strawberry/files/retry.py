"""Trying again what a disk refused for a moment."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

from safetensors import SafetensorError

T = TypeVar("T")

TRANSIENT = frozenset(
    {errno.EINTR, errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}
)
"""What a network file system or a tired disk says once, and then no more."""

PAUSES = [0.05, 0.2, 1.0]
"""Seconds before each new try."""


def retried(action: Callable[[], T]) -> T:
    """What `action` returns, tried a few times more where a transient I/O error stops it.

    It must be able to begin anew. Raises what the last try raises, and at once what would not
    pass by waiting (a full disk, a read-only folder).
    """
    for pause in PAUSES:
        try:
            return action()
        except (OSError, SafetensorError) as error:
            if number(error) not in TRANSIENT:
                raise
        time.sleep(pause)
    return action()


def number(error: OSError | SafetensorError) -> int | None:
    """The system's error number; safetensors has it in its text alone."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None
