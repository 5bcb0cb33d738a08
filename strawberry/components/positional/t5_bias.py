"""Learned relative biases in buckets of distance (Raffel et al. 2019, arXiv 1910.10683, sec. 2.1).

The causal form: half of the buckets have one distance each, the others have distances that grow
geometrically up to `max_distance`; all larger distances share the last bucket.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from strawberry.contracts import Positional, PositionalSite, exact
from strawberry.errors import FieldError


class T5Bias(Positional):
    """Adds a learned number to a score, by head and by the bucket of the distance.

    `q_t k_s^T / sqrt(D) + b_{h,n}` is the score of head h, with n the bucket of t - s.

    One table serves every block, as in T5; it starts at zero. Any length works.

    Args:
        n_head: heads H of the attentions that use it.
        buckets: number of distance buckets, an even number.
        max_distance: distances from this one on share the last bucket.
    """

    places = frozenset({"bias"})
    parameter_kinds = {"table": "embedding"}

    def __init__(
        self,
        site: PositionalSite,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        buckets: Annotated[int, Ge(4)] = 32,
        max_distance: Annotated[int, Ge(2)] = 128,
    ) -> None:
        super().__init__()
        if buckets % 2:
            raise FieldError("buckets", f"must be even, got {buckets}")
        if max_distance <= buckets // 2:
            message = (
                f"must exceed {buckets // 2 - 1}, the distances that half of the buckets "
                "represent exactly"
            )
            raise FieldError("max_distance", message)
        self.n_head = n_head
        self.buckets = buckets
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.zeros(buckets, n_head))

    def check(self, n_head: int, width: int) -> None:
        """Raises ValueError for another number of heads."""
        if n_head != self.n_head:
            raise ValueError(f"t5_bias was built for {self.n_head} heads, got {n_head}")

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance into the past, int64; later positions share bucket 0."""
        single = self.buckets // 2
        near = distance.clamp(min=0)
        ratio = near.clamp(min=1).to(exact(near.device)) / single
        steps = torch.log(ratio) / math.log(self.max_distance / single) * (self.buckets - single)
        # A power of the ratio must not fall into the bucket below by rounding.
        far = (single + (steps + 1e-6).floor().long()).clamp(max=self.buckets - 1)
        return torch.where(near < single, near, far)

    def bias(self, n_head: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(H, Tq, Tk)."""
        return self.table[self.bucket(queries[:, None] - keys)].permute(2, 0, 1)
