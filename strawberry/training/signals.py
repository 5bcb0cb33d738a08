"""Signals: the first stops a run at the end of the step, a second one may end it at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from strawberry.stopping import heeded, stopped_by


@dataclass(slots=True)
class StopRequest:
    """`asked` is the number of the signal that asked for a stop, or 0."""

    asked: int = 0


@contextlib.contextmanager
def stop_signals(insist: bool = True) -> Iterator[StopRequest]:
    """In this context the first signal sets `asked`; an insistent one has its usual effect.

    Without `insist` it has no effect: a launcher forwards to each of its processes the signals that
    they already got from the terminal, and kills those that take too long.
    """
    stop = StopRequest()
    numbers = heeded()
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int) -> None:
        if not stop.asked:
            stop.asked = number
        elif insist:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    with stopped_by(ask, numbers):
        yield stop
