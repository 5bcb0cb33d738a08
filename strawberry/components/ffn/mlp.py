"""The two-layer network of the Transformer (Vaswani et al. 2017, arXiv 1706.03762, eq. 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import FFN, Site, Use
from strawberry.errors import FieldError


def squared_relu(x: Tensor) -> Tensor:
    """`max(x, 0)^2` (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    """`x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, as in GPT-2 (arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "relu2": squared_relu,
}


class MLP(FFN):
    """`act(x W_in^T) W_out^T`.

    Args:
        n_ffn: hidden width; null takes 4 `n_embd`.
        activation: `gelu` (exact), `gelu_tanh` (its approximation), `relu` or `relu2` (its square).
    """

    def __init__(
        self,
        site: Site,
        *,
        n_ffn: int | None = None,
        activation: Literal["gelu", "gelu_tanh", "relu", "relu2"] = "gelu",
    ) -> None:
        super().__init__()
        if n_ffn is not None and n_ffn < 1:
            raise FieldError("n_ffn", f"must be positive, got {n_ffn}")
        hidden = n_ffn if n_ffn is not None else 4 * site.n_embd
        self.activation = ACTIVATIONS[activation]
        self.up = site.projection("up", hidden, site.n_embd)
        self.down = site.projection("down", site.n_embd, hidden, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.down(self.activation(self.up(x, use)), use)
