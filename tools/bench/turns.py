"""Timing several things in turns within one run, so that noise falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles

import torch
from torch.utils.flop_counter import FlopCounterMode

WARM_UP = 3


def take_turns(
    contenders: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each contender in each of `repeats` turns; who begins changes with the turn."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + repeats):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            began = time.perf_counter()
            contenders[name]()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def flops_of(run: Callable[[], object]) -> int:
    """FLOPs of the matrix products that torch sees while it runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def milliseconds(times: list[float]) -> float:
    """The median, in milliseconds."""
    return 1e3 * median(times)


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """The median over turns of one time over another, and the quartiles around it."""
    low, middle, high = quantiles([a / b for a, b in zip(above, below, strict=True)], n=4)
    return {"median": middle, "from": low, "to": high}


def shown(found: Mapping[str, float]) -> str:
    """A ratio as text."""
    return f"{found['median']:.2f} ({found['from']:.2f} to {found['to']:.2f})"
