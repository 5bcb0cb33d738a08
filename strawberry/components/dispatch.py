"""Dispatch tokens to the experts that a router chose, and combine the results.

N tokens with k experts each give N k rows. Sorted by expert they are consecutive, and each group
passes through its expert's matrix in one grouped product. Nothing is computed for an expert that a
token did not choose. Use:

    choice = router(x)                        # x (N, C)
    dispatch = Dispatch.of(choice)
    rows = dispatch.rows(x)                   # (N k, C), sorted by expert
    rows = dispatch.linear(rows, bank)        # by bank (E, F, C) -> (N k, F), still sorted
    y = dispatch.combine(rows, choice.gate)   # sum over a token's experts -> (N, F)

If tokens need the parts of all their experts in between (queries, for example), `spread(rows)`
gives (N, k, F) in the order of `choice.expert`, and `sort` converts back to (N k, F).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from strawberry.components.routing import ExpertAssignment
from strawberry.model.grouped import by_kernel, grouped_linear


@dataclass(frozen=True)
class Dispatch:
    """The order of the N k choices by expert.

    Attributes:
        active: experts for each token, k.
        order: (N k,) for each sorted row, the number of its choice; choice i belongs to token `i //
            k`.
        place: (N k,) for each choice, the position of its row in the order.
        ends: (E,) the end of each expert's rows.
        WAITS: the `waits` of a component with experts: the host synchronises once in a pass.
    """

    WAITS: ClassVar[str] = (
        "the host needs the number of rows of each expert, except for bfloat16 on CUDA "
        "(compute capability 9.0 or later), where one kernel computes all experts"
    )

    active: int
    order: Tensor
    place: Tensor
    ends: Tensor

    @classmethod
    def of(cls, choice: ExpertAssignment) -> Dispatch:
        """The order for a router's choice."""
        order = choice.expert.flatten().argsort(stable=True)
        place = torch.empty_like(order).scatter_(
            0, order, torch.arange(len(order), device=order.device)
        )
        return cls(choice.expert.shape[1], order, place, choice.counts.cumsum(0))

    def rows(self, x: Tensor) -> Tensor:
        """A row for each choice of each token, sorted by expert: (N, C) -> (N k, C)."""
        return x.index_select(0, self.order // self.active)

    def linear(self, rows: Tensor, bank: Tensor) -> Tensor:
        """Each sorted row by its expert's matrix: (N k, C), (E, F, C) -> (N k, F)."""
        return grouped_linear(rows, bank, self.ends if by_kernel(rows, bank) else self.ends_at_hand)

    @cached_property
    def ends_at_hand(self) -> Tensor:
        """`ends` on the host: one synchronisation for all products and their gradients."""
        return self.ends if self.ends.is_meta else self.ends.cpu()

    def spread(self, rows: Tensor) -> Tensor:
        """Sorted rows in the order of the choice: (N k, F) -> (N, k, F)."""
        return rows.index_select(0, self.place).view(-1, self.active, rows.shape[-1])

    def sort(self, parts: Tensor) -> Tensor:
        """Each token's values for each of its experts, sorted by expert: (N, k, F) -> (N k, F)."""
        return parts.flatten(0, 1).index_select(0, self.order)

    def combine(self, rows: Tensor, gate: Tensor) -> Tensor:
        """The weighted sum over a token's experts, in the gates' precision.

        Sorted rows (N k, F) and gates (N, k) -> (N, F), in the precision of the rows.
        """
        return weighted(self.spread(rows), gate)


def weighted(parts: Tensor, gate: Tensor) -> Tensor:
    """`sum_j gate[n, j] parts[n, j]`: (N, k, F), (N, k) -> (N, F)."""
    return (parts * gate[..., None]).sum(1).to(parts.dtype)
