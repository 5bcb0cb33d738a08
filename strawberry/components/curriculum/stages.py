"""Growth in stages, each as long as the others."""

from __future__ import annotations


def stage(step: int, steps: int, stages: int) -> int:
    """Which stage a step is in, from 0; `stages - 1` from `steps` on."""
    return min(stages - 1, step * stages // max(1, steps))


def grown(first: int, last: int, number: int, stages: int) -> int:
    """The value of a stage, in equal ratios from the first to the last."""
    if number == stages - 1:
        return last
    return max(1, min(last, round(first * (last / first) ** (number / (stages - 1)))))
