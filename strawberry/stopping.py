"""The signals that ask a process to stop: it saves, and ends with 128 + the signal's number."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

INSISTING: Final = (signal.SIGINT, signal.SIGTERM)
"""A second one of these ends at once: somebody is tired of waiting."""
PATIENT: Final = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""A terminal that is gone, and a cluster's warning. They come more than once: from the terminal and
from its shell, and before a SIGTERM."""
STOPPING: Final = (*INSISTING, *PATIENT)


def heeded() -> list[signal.Signals]:
    """Those that are not ignored, as SIGHUP is under `nohup`."""
    return [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def stopped_by(act: Callable[[int], None], numbers: list[signal.Signals]) -> Iterator[None]:
    """Within it the first of these signals calls `act`, and so does each one that insists.

    In a thread that is not the main one nothing is changed: only that may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        insists = number in INSISTING and any(before in INSISTING for before in seen)
        first = not seen
        seen.append(number)
        if first or insists:
            act(number)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
