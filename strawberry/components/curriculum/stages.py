"""Growth in stages, each as long as the others."""

from __future__ import annotations


def stage(step: int, steps: int, stages: int) -> int:
    """Which stage a step is in, from 0; `stages - 1` from `steps` on."""
    return min(stages - 1, step * stages // max(1, steps))


def in_stages(
    first: int, last: int, step: int, steps: int, *, stages: int, multiple: int
) -> int | None:
    """The value of a step, in equal ratios from stage to stage; None from `steps` on.

    Args:
        first: the value of the first stage.
        last: the value from `steps` on, which no earlier one is above.
        step: from 0.
        steps: length of all stages but the last.
        stages: how many there are, the last one among them.
        multiple: values are multiples of it, rounded down.
    """
    if step >= steps:
        return None
    number = stage(step, steps, stages - 1)
    value = round(first * (last / first) ** (number / (stages - 1)))
    return min(last, max(1, value // multiple) * multiple)
