"""Terms: losses and metrics that a component returns with its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Read: TypeAlias = Callable[[Tensor], Tensor]


class Term(NamedTuple):
    """A value that a component returns with its output.

    With `weight` > 0 it is an auxiliary loss, added to the training loss as the mean of `weight *
    value` over the terms of that name. With weight 0 it is a metric, which is only logged.

    `value` must be a mean over all tokens that the model received. Micro-batches are weighted by
    tokens, so such a mean doesn't depend on the division of a step. For another metric, `value` is
    a tensor of the means that it is computed from, and `read` computes it:

        Term("fullest", counts / counts.sum(), read=lambda share: share.max())

    A loss that is not such a mean, for example a product of means, is computed for each micro-batch
    and averaged. Its module declares the responsible fields in an attribute `by_micro_batch`, which
    `strawberry build` reports.
    """

    name: str
    value: Tensor
    weight: float = 0.0
    read: Read | None = None


Aux: TypeAlias = tuple[Term, ...]


class Metric(NamedTuple):
    """The combined value of the terms of one name.

    Attributes:
        values: means over tokens: one for all terms, or with `read` one for each.
        read: computes a number from each, whose mean is the metric; None if they are numbers.
    """

    values: tuple[Tensor, ...]
    read: Read | None = None

    def number(self) -> Tensor:
        """The metric."""
        each = self.values if self.read is None else map(self.read, self.values)
        return torch.stack([value.float() for value in each]).mean()


def with_aux(result: Tensor | tuple[Tensor, Aux]) -> tuple[Tensor, Aux]:
    """A component's result as (output, terms), from either of the two forms."""
    return (result, ()) if isinstance(result, Tensor) else result


def mean_terms(terms: Iterable[Term]) -> dict[str, tuple[Metric, Tensor | None]]:
    """Per name: the metric, and the mean of `weight * value`, None without a weight."""
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
