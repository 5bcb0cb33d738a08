"""AFT-conv: attention-free, with learned biases by distance (arXiv 2105.14103, eq. 5).

The biases of head h are `w_h = gamma_h (v_h - mean v_h) / std v_h + beta_h` over the window's
offsets; keys beyond it have bias 0. Biases don't depend on the position, so any length works.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from strawberry.components.attention.aft import AFT, Width
from strawberry.components.attention.aft_band import band_mean, band_state
from strawberry.contracts import Site, State, Use, drawn
from strawberry.errors import FieldError


class AFTConv(AFT):
    """A causal convolution over keys and values, and the mean of everything further back.

    `y_t = sigmoid(q_t) * sum_s exp(k_s + w_{t-s}) v_s / sum_s exp(k_s + w_{t-s})` over s <= t,
    for each channel; w is a head's learned bias of a distance, and 0 beyond the window.

    Training memory is linear in T; the decoding state is constant.

    Args:
        n_head: heads, each with its own biases.
        window: number of offsets with biases, including the token's own.
        k_channels: `head` gives a head one key, as in the paper; `full` one for each channel.
        qk_norm: root-mean-square normalisation of q and k over their widths, without a gain.
        gamma: initial standard deviation of the biases. The default is close to AFT-simple, but
            large enough for all to learn; with 1 a head prefers some offsets from the first step.
        beta: initial mean of the biases: a key in the window has exp(beta) times the weight of one
            beyond it.
    """

    parameter_kinds = {"form": "vector"}

    def __init__(
        self,
        site: Site,
        *,
        n_qkv: Width | None = None,
        n_head: Annotated[int, Ge(1)] = 4,
        window: Annotated[int, Ge(2)] = 32,
        k_channels: Literal["head", "full"] = "head",
        gamma: float = 0.1,
        beta: float = 0.0,
        **shared: Any,
    ) -> None:
        width = n_qkv if n_qkv is not None else site.n_embd
        if width % n_head:
            raise FieldError("n_head", f"width {width} can't be split into {n_head} heads")
        super().__init__(
            site,
            n_head if k_channels == "head" else None,
            n_qkv=n_qkv,
            **shared,
        )
        self.n_head = n_head
        self.window = window
        self.form = drawn(n_head, window, std=1.0, uniform=False)
        self.gamma = nn.Parameter(torch.full((n_head,), gamma))
        self.beta = nn.Parameter(torch.full((n_head,), beta))

    def mix(self, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """The mean with biases by distance: (B, T, n_qkv)."""
        if k.shape[-1] != v.shape[-1]:
            k = k.repeat_interleave(self.n_qkv // self.n_head, dim=-1)
        biases = self._biases()
        return band_mean(k, v, biases, use.state, self.den_eps, bounded=self.bounded)

    def _biases(self) -> Tensor:
        """Biases by offset and channel, (window, 1, N)."""
        spread, mean = torch.std_mean(self.form, dim=1, keepdim=True, correction=0)
        unit = (self.form - mean) / (spread + 1e-6)
        w = self.gamma[:, None] * unit + self.beta[:, None]
        return w.repeat_interleave(self.n_qkv // self.n_head, dim=0).T[:, None]

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Sums and a window of terms: 2 * window * n_qkv float64 numbers, for any length."""
        return band_state(self.sums(batch, device, "num", "den"), self.window)
