"""GLU (Shazeer 2020, arXiv 2002.05202, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from strawberry.components.ffn.gated import Gated


class GLU(Gated):
    """`(u * sigmoid(g)) W_out^T`; `[u | g] = x W_in^T`."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(torch.sigmoid)
