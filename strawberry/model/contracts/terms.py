"""What travels up from a component beside its output: losses and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Term(NamedTuple):
    """A value that travels up from a component beside its output.

    With `weight` > 0 it is an auxiliary loss, added to the training loss as the mean of
    `weight * value` over the terms of that name; with weight 0 it is a metric, only logged.
    """

    name: str
    value: Tensor
    weight: float = 0.0


Aux: TypeAlias = tuple[Term, ...]


def with_aux(result: Tensor | tuple[Tensor, Aux]) -> tuple[Tensor, Aux]:
    """A component's result as (output, terms), whichever of the two forms it returned."""
    return (result, ()) if isinstance(result, Tensor) else result


def mean_terms(terms: Iterable[Term]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Per name: the mean of the values, and that of `weight * value`, None if no weight is set."""
    grouped: dict[str, list[Term]] = {}
    for term in terms:
        grouped.setdefault(term.name, []).append(term)
    return {
        name: (
            torch.stack([t.value for t in group]).mean(),
            torch.stack([t.weight * t.value for t in group]).mean()
            if any(t.weight for t in group)
            else None,
        )
        for name, group in grouped.items()
    }
