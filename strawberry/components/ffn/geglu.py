"""GEGLU (Shazeer 2020, arXiv 2002.05202, eq. 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from strawberry.components.ffn.gated import Gated


class GEGLU(Gated):
    """`(u * gelu(g)) W_out^T` with the exact GELU; `[u | g] = x W_in^T`."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(F.gelu)
