"""SwiGLU (Shazeer 2020, arXiv 2002.05202, eq. 6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from strawberry.errors import FieldError
from strawberry.model.contracts import FFN, Site, Use


class SwiGLU(FFN):
    """`(u * silu(g)) W_out^T` with `[u | g] = x W_in^T`: the second half is the gate.

    Args:
        n_ffn: hidden width; None takes 8/3 of `n_embd`, rounded up to a multiple of 8, which has
            the parameters of a plain MLP of width 4 `n_embd`.
    """

    def __init__(self, site: Site, *, n_ffn: int | None = None) -> None:
        super().__init__()
        if n_ffn is not None and n_ffn < 1:
            raise FieldError("n_ffn", f"{n_ffn} is not a positive width")
        hidden = n_ffn if n_ffn is not None else -(-site.n_embd * 8 // 24) * 8
        self.up = site.projection("up", 2 * hidden, site.n_embd)
        self.down = site.projection("down", site.n_embd, hidden, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        u, gate = self.up(x, use).chunk(2, dim=-1)
        return self.down(u * F.silu(gate), use)
