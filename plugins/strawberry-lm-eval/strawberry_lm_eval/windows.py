"""Cut token sequences into windows in which each token to score has as much context as fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """Ids that a model reads at once; the last `scored` ids are predicted, from all before them."""

    ids: tuple[int, ...]
    scored: int


def windows(context: Sequence[int], scored: Sequence[int], length: int) -> Iterator[Window]:
    """The windows that score each id of `scored` once, after `context`.

    A window has at most `length` inputs, so the beginning of a long context is cut off. Ids that
    don't fit into one window are scored in several: the first is filled with ids to score, and each
    later one holds as many, as `loglikelihood_rolling` of the harness does.

    Args:
        context: ids before the scored ones, at least one.
        scored: ids to score.
        length: the most inputs that the model reads.
    """
    ids = (*context, *scored)
    if len(scored) <= length:
        if scored:
            yield Window(ids[-length - 1 :], len(scored))
        return
    begin = len(context)
    for first in range(begin, len(ids), length):
        last = min(first + length, len(ids))
        yield Window(ids[max(0, last - length - 1) : last], last - first)
