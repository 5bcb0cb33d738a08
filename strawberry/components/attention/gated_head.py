"""The output head of the original's mixers: a SwiGLU mini-FFN instead of a plain projection."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import Site, Use
from strawberry.errors import FieldError


class GatedHead(nn.Module):
    """`(u * silu(g)) W_out^T` with `[u | g] = y W_swiglu^T`, from mixed values to the model width.

    Args:
        n_qkv: width of the mixed values y.
        n_ffn: hidden width; null takes `n_embd`.
    """

    def __init__(self, site: Site, n_qkv: int, n_ffn: int | None) -> None:
        super().__init__()
        if n_ffn is not None and n_ffn < 1:
            raise FieldError("n_ffn", f"must be positive, got {n_ffn}")
        hidden = n_ffn if n_ffn is not None else site.n_embd
        parts = {"up": hidden, "gate": hidden}
        self.swiglu = site.projection("swiglu", 2 * hidden, n_qkv, parts=parts)
        self.out = site.projection("out", site.n_embd, hidden, output=True)

    def forward(self, y: Tensor, use: Use) -> Tensor:
        """(B, T, n_qkv) -> (B, T, C)."""
        u, gate = self.swiglu(y, use).chunk(2, dim=-1)
        return self.out(u * F.silu(gate), use)


class PlainHead(nn.Module):
    """`y W_out^T`."""

    def __init__(self, site: Site, n_qkv: int) -> None:
        super().__init__()
        self.out = site.projection("out", site.n_embd, n_qkv, output=True)

    def forward(self, y: Tensor, use: Use) -> Tensor:
        """(B, T, n_qkv) -> (B, T, C)."""
        return self.out(y, use)
