"""SIGINT and SIGTERM ask for a stop at the end of the step; a second one ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Stop:
    """`asked` is the number of the signal that asked for a stop, or 0."""

    asked: int = 0


@contextlib.contextmanager
def stop_signals(insist: bool = True) -> Iterator[Stop]:
    """While inside, the first signal sets `asked`; the second does what it always does.

    Without `insist` it does nothing: a launcher passes on to each of its processes what they have
    had from the terminal already, and kills those that take too long.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        stop.asked = stop.asked or number
        if not insist:
            return
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
