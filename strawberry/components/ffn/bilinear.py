"""Bilinear (Shazeer 2020, arXiv 2002.05202, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from strawberry.components.ffn.gated import Gated


def _identity(x: Tensor) -> Tensor:
    return x


class Bilinear(Gated):
    """`(u * g) W_out^T`: a gate without an activation; `[u | g] = x W_in^T`."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(_identity)
