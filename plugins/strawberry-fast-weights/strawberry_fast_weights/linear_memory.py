"""The linear form of fast weights: what a causal linear attention recalls joins the input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.components import OwnedWeights, Rule, recurrence, unit_rms
from strawberry.contracts import (
    Projection,
    ProjectionRequest,
    State,
    Use,
    drawn,
    wide,
    without_autocast,
)

RMS_EPS = 1e-6
FORGET = -1e4
"""A log decay after which nothing is left."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a memory is like: see the fields of `FastWeights`."""

    rule: Rule
    rank: int
    decay: float
    chunk: int
    gamma: float


class LinearMemoryProjection(Projection):
    """`(h_t + gamma q_t S_t / Z_t) W^T` with `S_t = lambda S_{t-1} + a_{t-1}^T o_{t-1}`.

    W_o (C, C), W_a and W_c (R, C) start uniform at fan-in scale.
    """

    def __init__(self, request: ProjectionRequest, source: OwnedWeights, memory: Memory) -> None:
        super().__init__(request)
        source.declare(self, request)
        width, rank = request.in_features, memory.rank
        self.decay = memory.decay
        self.chunk = memory.chunk
        self.value = drawn(width, width, std=width**-0.5, uniform=True)
        self.key = drawn(rank, width, std=width**-0.5, uniform=True)
        self.query = drawn(rank, width, std=width**-0.5, uniform=True)
        self.gamma = nn.Parameter(torch.full((1,), memory.gamma))

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The memory, whatever the length; sums in float32 at least."""
        (R, C), sums = self.key.shape, torch.promote_types(dtype, torch.float32)
        shapes = {"memory": (R, C), "key": (R,), "value": (C,)}
        return {
            f"{self.name}.{name}": torch.zeros(batch, *shape, device=device, dtype=sums)
            for name, shape in shapes.items()
        }

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, out_features)."""
        q, k, v = (F.linear(x, w) for w in (self.query, self.key, self.value))
        q, k, v = wide(q) * len(self.key) ** -0.5, unit(k), unit(v)
        with without_autocast(x.device):
            recalled = self._recall(q, k, v, use)
        return super().forward(x + (wide(self.gamma) * recalled).to(x.dtype), use)

    def _recall(self, q: Tensor, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """(B, T, C): what tokens before each one wrote, by its query."""
        state, T = use.state, q.shape[1]
        k, last_k = _shifted(k, state, f"{self.name}.key")
        v, last_v = _shifted(v, state, f"{self.name}.value")
        seen = use.offset + torch.arange(T, device=q.device)
        log_decay = None
        if self.decay < 1:
            log_decay = q.new_full((len(q), T, 1), math.log(self.decay))
        if use.documents is not None:
            begins = _begins(use.documents)
            k = k.masked_fill(begins[..., None], 0.0)
            log_decay = q.new_zeros(len(q), T, 1) if log_decay is None else log_decay
            log_decay = log_decay.masked_fill(begins[..., None], FORGET)
            seen = seen - torch.where(begins, seen, 0).cummax(1).values
        y, memory = recurrence(
            q[:, None],
            k[:, None],
            v[:, None],
            log_decay=None if log_decay is None else log_decay[:, None],
            beta=None,
            state=None if state is None else state[f"{self.name}.memory"][:, None].to(q.dtype),
            chunk=self.chunk,
        )
        if state is not None:
            state[f"{self.name}.memory"].copy_(memory[:, 0])
            state[f"{self.name}.key"].copy_(last_k)
            state[f"{self.name}.value"].copy_(last_v)
        return y[:, 0] / decayed_count(seen, self.decay, y.dtype).clamp(min=1.0)[..., None]

    def extra_repr(self) -> str:
        """Shape and the memory's rank."""
        return f"{super().extra_repr()}, memory of rank {len(self.key)}"


def unit(x: Tensor) -> Tensor:
    """Rows with mean square 1, in float32 at least; rows of zeros stay."""
    return unit_rms(wide(x), RMS_EPS)


def decayed_count(n: Tensor, decay: float, dtype: torch.dtype) -> Tensor:
    """`sum_{i < n} decay^i`."""
    n = n.to(dtype)
    return n if decay == 1 else (1 - decay**n) / (1 - decay)


def _shifted(x: Tensor, state: State | None, name: str) -> tuple[Tensor, Tensor]:
    """(B, T, width) one token later, after what the state has or zeros; and the last token."""
    before = torch.zeros_like(x[:, :1]) if state is None else state[name][:, None].to(x.dtype)
    return torch.cat([before, x[:, :-1]], 1), x[:, -1]


def _begins(documents: Tensor) -> Tensor:
    """Return whether a token is the first of its document."""
    changes = documents[:, 1:] != documents[:, :-1]
    return F.pad(changes, (1, 0), value=True)
