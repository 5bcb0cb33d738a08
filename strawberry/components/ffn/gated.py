"""The gated networks (Shazeer 2020, arXiv 2002.05202, eq. 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import FFN, Site, Use


def gated_width(n_embd: int) -> int:
    """8/3 of the model width, rounded up to a multiple of 8: the parameters of a 4-fold MLP."""
    return -(-n_embd * 8 // 24) * 8


class Gated(FFN):
    """`(u * act(g)) W_out^T` with `[u | g] = x W_in^T`: the second half is the gate.

    Args:
        n_ffn: hidden width; null takes 8/3 of `n_embd`, rounded up to a multiple of 8, which has
            the parameters of a plain MLP of width 4 `n_embd`.
    """

    activation: ClassVar[Callable[[Tensor], Tensor]]

    def __init__(self, site: Site, *, n_ffn: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__()
        hidden = n_ffn if n_ffn is not None else gated_width(site.n_embd)
        parts = {"up": hidden, "gate": hidden}
        self.up = site.projection("up", 2 * hidden, site.n_embd, parts=parts)
        self.down = site.projection("down", site.n_embd, hidden, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        u, gate = self.up(x, use).chunk(2, dim=-1)
        return self.down(u * type(self).activation(gate), use)


def _identity(x: Tensor) -> Tensor:
    return x


class Bilinear(Gated):
    """`(u * g) W_out^T`: a gate without an activation; `[u | g] = x W_in^T`."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(_identity)


class GLU(Gated):
    """`(u * sigmoid(g)) W_out^T`; `[u | g] = x W_in^T`."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(torch.sigmoid)


class ReGLU(Gated):
    """`(u * max(g, 0)) W_out^T`; `[u | g] = x W_in^T`."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(F.relu)


class GEGLU(Gated):
    """`(u * gelu(g)) W_out^T` with the exact GELU; `[u | g] = x W_in^T`."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(F.gelu)


class SwiGLU(Gated):
    """`(u * silu(g)) W_out^T` with `[u | g] = x W_in^T`: the second half is the gate."""

    activation: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(F.silu)


FORMS: dict[str, type[Gated]] = {
    "bilinear": Bilinear,
    "geglu": GEGLU,
    "glu": GLU,
    "reglu": ReGLU,
    "swiglu": SwiGLU,
}
"""The gated networks by their names in recipes."""
