"""Sending tokens to the experts that a router chose, and bringing the results back.

N tokens, k experts for each, so N k rows; sorted by expert they are consecutive, and each group
goes through its expert's matrix in one grouped product. No work is done for an expert that a token
did not choose. Use:

    choice = router(x)                        # x (N, C)
    dispatch = Dispatch.of(choice)
    rows = dispatch.rows(x)                   # (N k, C), sorted by expert
    rows = dispatch.linear(rows, bank)        # by bank (E, F, C) -> (N k, F), still sorted
    y = dispatch.combine(rows, choice.gate)   # sum over a token's experts -> (N, F)

Where tokens need their parts side by side in between (queries, for one), `spread(rows)` gives
(N, k, F) in the order of `choice.expert`, and `sort` takes that back to (N k, F).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from strawberry.components.routing import ExpertAssignment
from strawberry.model.grouped import by_kernel, grouped_linear

WAITS = (
    "the host needs the number of rows of each expert, except for bfloat16 on CUDA "
    "(compute capability 9.0 or later), where one kernel computes all experts"
)
"""Why the host waits for an accelerator once in a pass through experts."""


@dataclass(frozen=True)
class Dispatch:
    """The order of the N k choices by expert.

    Attributes:
        active: experts for each token, k.
        order: (N k,) for each sorted row, which choice it is; choice i is of token `i // k`.
        place: (N k,) for each choice, where its row is in the order.
        ends: (E,) where the rows of each expert end.
    """

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
        """`ends` where the host has them: it waits once for all products and their gradients."""
        return self.ends if self.ends.is_meta else self.ends.cpu()

    def spread(self, rows: Tensor) -> Tensor:
        """Sorted rows back at their tokens, in the order of the choice: (N k, F) -> (N, k, F)."""
        return rows.index_select(0, self.place).view(-1, self.active, rows.shape[-1])

    def sort(self, parts: Tensor) -> Tensor:
        """What each token has for each of its experts, sorted by expert: (N, k, F) -> (N k, F)."""
        return parts.flatten(0, 1).index_select(0, self.order)

    def combine(self, rows: Tensor, gate: Tensor) -> Tensor:
        """The sum over a token's experts, weighted, in the gates' precision.

        Sorted rows (N k, F) and gates (N, k) -> (N, F), in the precision of the rows.
        """
        return weighted(self.spread(rows), gate)


def weighted(parts: Tensor, gate: Tensor) -> Tensor:
    """`sum_j gate[n, j] parts[n, j]`: (N, k, F), (N, k) -> (N, F)."""
    return (parts * gate[..., None]).sum(1).to(parts.dtype)
