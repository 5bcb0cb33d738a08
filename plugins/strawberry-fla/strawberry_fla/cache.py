"""fla's cache protocol over Strawberry's dict of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from strawberry.contracts import State

RECURRENT = "recurrent"
"""The name in a state of what fla calls `recurrent_state`."""


class LayerCache:
    """The `past_key_values` of a layer of fla: one layer's state, in and out.

    A layer asks for `len(cache)`, for `cache[layer_idx]` if it is above `layer_idx`, which is 0
    here, and hands what it has at the end to `update`.

    Args:
        state: the tensors that are kept between calls; `update` writes to them.
        convolutions: the names in `state` of the convolutions' tails, in fla's order.
        single: whether fla has the one tail as a tensor rather than several as a tuple.
        begun: whether tokens came before these.
        dtype: what the layer computes in, and so what it takes tails in.
    """

    def __init__(
        self,
        state: State,
        convolutions: Sequence[str],
        *,
        single: bool,
        begun: bool,
        dtype: torch.dtype,
    ) -> None:
        self.state = state
        self.convolutions = convolutions
        self.single = single
        self.begun = begun
        self.dtype = dtype

    def __len__(self) -> int:
        return int(self.begun)

    def __getitem__(self, layer_idx: int) -> dict[str, Any]:
        # Some kernels write into what they are given, which autograd may still need.
        tails = [self._given(name).to(self.dtype) for name in self.convolutions]
        whole = tails[0] if self.single else tuple(tails)
        return {
            "recurrent_state": self._given(RECURRENT),
            "conv_state": whole if tails else None,
            "attn_state": None,
            "ffn_state": None,
        }

    def update(
        self,
        recurrent_state: Tensor | None = None,
        conv_state: Tensor | Sequence[Tensor] | None = None,
        **_: Any,
    ) -> None:
        """Keep what the layer has after its last token."""
        assert recurrent_state is not None
        tails = () if conv_state is None else conv_state
        tails = (tails,) if isinstance(tails, Tensor) else tails
        self.state[RECURRENT].copy_(recurrent_state)
        for name, tail in zip(self.convolutions, tails, strict=True):
            self.state[name].copy_(tail)
        self.begun = True

    def _given(self, name: str) -> Tensor:
        kept = self.state[name]
        return kept.clone() if torch.is_grad_enabled() else kept
