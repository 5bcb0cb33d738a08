"""AFT-local: attention-free, with learned biases for near positions (arXiv 2105.14103, sec. 3)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from strawberry.components.attention.aft import AFT
from strawberry.components.attention.aft_band import band_mean, band_state
from strawberry.contracts import Site, State, Use, drawn

STD = 0.01
"""Initial standard deviation of biases: the mixer begins close to AFT-simple."""


class TableAFT(AFT):
    """A mixer whose biases are in a table of positions, which end at `block_size`.

    Args:
        rank: write w as u[t] . z[s] with vectors of this width; null learns a bias for each pair.
    """

    routable = False
    parameter_kinds = {"biases": "embedding", "queries": "embedding", "keys": "embedding"}

    def __init__(
        self,
        site: Site,
        columns: int,
        *,
        rank: Annotated[int, Ge(1)] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.block_size = site.block_size
        self.biases: nn.Parameter | None = None
        self.queries: nn.Parameter | None = None
        self.keys: nn.Parameter | None = None
        if rank is None:
            self.biases = drawn(self.block_size, columns, std=STD, uniform=False)
        else:
            self.queries = drawn(self.block_size, rank, std=STD, uniform=False)
            self.keys = drawn(self.block_size, rank, std=STD, uniform=False)

    def limit(self) -> int:
        """`block_size`."""
        return self.block_size


class AFTLocal(TableAFT):
    """`w[t, s]` is learned where t - s < window; further back it is 0, not minus infinity.

    `y_t = sigmoid(q_t) * sum_s exp(k_s + w_{t,s}) v_s / sum_s exp(k_s + w_{t,s})` over s <= t,
    for each channel.

    Training memory is linear in T; the decoding state is constant. Positions end at `block_size`.

    Args:
        window: number of offsets with biases, including the token's own.
    """

    def __init__(self, site: Site, *, window: Annotated[int, Ge(1)] = 32, **shared: Any) -> None:
        super().__init__(site, window, **shared)
        self.window = window

    def mix(self, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """The mean with biases for near positions: (B, T, n_qkv)."""
        biases = self._biases(use.positions)
        return band_mean(k, v, biases, use.state, self.den_eps, bounded=self.bounded)

    def _biases(self, positions: Tensor) -> Tensor:
        """Biases by offset, (window, T, 1); entries before the first position are never read."""
        if self.biases is not None:
            return self.biases[positions].T[..., None]
        assert self.queries is not None
        assert self.keys is not None
        offsets = torch.arange(self.window, device=positions.device)
        near = (positions - offsets[:, None]).clamp(min=0)
        return (self.queries[positions] * self.keys[near]).sum(-1, keepdim=True)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Sums and a window of terms: 2 * window * n_qkv float64 numbers, for any length."""
        return band_state(self.sums(batch, device, "num", "den"), self.window)
