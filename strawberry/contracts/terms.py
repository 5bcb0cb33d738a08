"""What travels up from a component beside its output: losses and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Read: TypeAlias = Callable[[Tensor], Tensor]


class Term(NamedTuple):
    """A value that travels up from a component beside its output.

    With `weight` > 0 it is an auxiliary loss, added to the training loss as the mean of
    `weight * value` over the terms of that name. With weight 0 it is a metric, only logged.

    `value` has to be a mean over all tokens that the model was given. Micro-batches are weighed by
    their tokens, so that such a mean doesn't depend on how a step is divided. For a metric that is
    no such mean, `value` is a tensor of the means that it is computed from, and `read` computes it:

        Term("fullest", counts / counts.sum(), read=lambda share: share.max())

    A loss that is no such mean, as a product of means isn't, is that of each micro-batch by itself,
    averaged; its module says so by an attribute `by_micro_batch`, the names of the fields that ask
    for it, and `strawberry build` tells it.
    """

    name: str
    value: Tensor
    weight: float = 0.0
    read: Read | None = None


Aux: TypeAlias = tuple[Term, ...]


class Metric(NamedTuple):
    """What the terms of one name come to.

    Attributes:
        values: means over tokens: one for all terms, or where there is `read` one for each.
        read: makes a number of each, whose mean is the metric; None where they are numbers.
    """

    values: tuple[Tensor, ...]
    read: Read | None = None

    def number(self) -> Tensor:
        """The metric."""
        each = self.values if self.read is None else map(self.read, self.values)
        return torch.stack([value.float() for value in each]).mean()


def with_aux(result: Tensor | tuple[Tensor, Aux]) -> tuple[Tensor, Aux]:
    """A component's result as (output, terms), whichever of the two forms it returned."""
    return (result, ()) if isinstance(result, Tensor) else result


def mean_terms(terms: Iterable[Term]) -> dict[str, tuple[Metric, Tensor | None]]:
    """Per name: the metric, and the mean of `weight * value`, None if no weight is set."""
    grouped: dict[str, list[Term]] = {}
    for term in terms:
        grouped.setdefault(term.name, []).append(term)
    return {
        name: (
            _metric(group),
            torch.stack([t.weight * t.value for t in group]).mean()
            if any(t.weight for t in group)
            else None,
        )
        for name, group in grouped.items()
    }


def _metric(group: list[Term]) -> Metric:
    values, read = tuple(t.value.detach() for t in group), group[0].read
    return Metric((torch.stack(values).mean(),)) if read is None else Metric(values, read)
