"""Common parts of the wrapped layers: the call, the cache, the counting, and refused settings."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from strawberry.contracts import Attention, State, Use
from strawberry.errors import FieldError, StrawberryError
from strawberry_fla import available
from strawberry_fla.cache import RECURRENT, LayerCache
from strawberry_fla.counting import seen, stand_in


class FlaMixer(Attention):
    """A layer of fla as an attention; it is `self.layer`, with fla's own matrices.

    A subclass makes the layer, and says where its matrices are and what it keeps.

    Attributes:
        reads: attributes of the layer that project its input, where it has them.
        writes: the attribute that projects its output.
        elsewhere: what would do where fla's kernels don't run.
        recurrent: shape of the recurrent state of one sequence.
        tails: channels of each convolution, by its name in the state; empty without one.
        conv: tokens that a convolution sees.
        products: FLOPs of the recurrence for each token.
        single_step: whether a cached call after the first one takes one token alone.
        half_from: tokens from which on it computes in half precision alone; None for never.
    """

    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[str]
    elsewhere: ClassVar[str]
    single_step: ClassVar[bool] = False
    parameter_kinds = {
        f"layer.{name}.weight": "vector" for name in ("q_conv1d", "k_conv1d", "v_conv1d", "conv1d")
    }
    recurrent: tuple[int, int, int]
    tails: dict[str, int]
    conv: int
    products: int
    half_from: int | None = None

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        layer = available.layer_class(name, self.elsewhere)
        self.layer = layer(**options, layer_idx=0)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        y = self._on_meta(x) if x.is_meta else self._run(x, use)
        return seen(y, x.shape[0] * x.shape[1] * self.products)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The recurrent state in float32 and the tails of the convolutions, whatever the length."""
        state = {RECURRENT: torch.zeros(batch, *self.recurrent, device=device)}
        for name, channels in self.tails.items():
            state[name] = torch.zeros(batch, channels, self.conv, device=device, dtype=dtype)
        return state

    def _run(self, x: Tensor, use: Use) -> Tensor:
        dtype = self._computing(x)
        if use.state is None:
            y: Tensor = self.layer(x)[0]
            return y.to(x.dtype)
        cache = LayerCache(
            use.state,
            [*self.tails],
            single=self.single_step,
            begun=use.offset > 0,
            dtype=dtype,
        )
        pieces = torch.split(x, 1, dim=1) if cache.begun and self.single_step else (x,)
        outputs = [self.layer(p, past_key_values=cache, use_cache=True)[0] for p in pieces]
        return torch.cat(outputs, dim=1).to(x.dtype)

    def _computing(self, x: Tensor) -> torch.dtype:
        """The layer's compute dtype; raises StrawberryError if it is not supported."""
        kind = x.device.type
        name = type(self.layer).__name__
        if kind not in available.DEVICES:
            raise StrawberryError(
                f"fla's {name} runs on {' or '.join(available.DEVICES)} alone, and this model is "
                f"on {kind}; {self.elsewhere}"
            )
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        limit = self.half_from
        if limit is not None and x.shape[1] >= limit and dtype not in (torch.bfloat16, torch.half):
            raise StrawberryError(
                f"fla's {name} mixes {limit} tokens and more in half precision alone: write "
                "`dtype: bfloat16` under `train`, or `mode: fused_recurrent` for it"
            )
        return dtype

    def _on_meta(self, x: Tensor) -> Tensor:
        """The matrices, and an empty tensor for what the kernels make of them."""
        read = [getattr(self.layer, name)(x) for name in self.reads if hasattr(self.layer, name)]
        write = getattr(self.layer, self.writes)
        output: Tensor = write(stand_in(write.in_features, *read))
        return output


def whole(field: str, value: float) -> int:
    """`value` as an integer; FieldError at that field if it is none."""
    if abs(value - round(value)) > 1e-6:
        raise FieldError(field, f"gives a width of {value:g}, which is no whole number")
    return round(value)


def heads(field: str, width: int, n_head: int) -> int:
    """The width of each of `n_head` heads; FieldError at that field if they don't divide it."""
    if width % n_head:
        raise FieldError(field, f"width {width} can't be split into {n_head} heads")
    return width // n_head
