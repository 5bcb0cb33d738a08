"""Retry after transient disk errors."""

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
"""errno values that are worth a retry."""

PAUSES = [0.05, 0.2, 1.0]
"""Pauses before the retries, in seconds."""


def retried(action: Callable[[], T]) -> T:
    """The result of `action`, retried a few times after transient I/O errors.

    It must be repeatable. Raises the last try's error, and permanent errors at once (a full disk, a
    read-only folder).
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
    """The errno of an error; safetensors has it only in its text."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None
