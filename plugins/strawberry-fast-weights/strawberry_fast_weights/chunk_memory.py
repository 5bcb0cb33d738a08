"""The chunk form of fast weights: a chunk's matrix follows from the chunks before it.

With S tokens a chunk, counted from the start of the sequence, and R the memory's rank:

    A_c = sum_{t < cS} lambda^{cS-1-t} o_t^T a_t / Z_c,     A_0 = 0             (R, R)
    OA_c = U rms(A_c) U^T C^-0.5                                                (C, C)

and the tokens of chunk c use the rule's result with `M + gamma OA_c` for M.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.components import SWAPS, OwnedWeights, Rule, Update
from strawberry.contracts import (
    Projection,
    ProjectionRequest,
    State,
    Use,
    drawn,
    wide,
    without_autocast,
)
from strawberry_fast_weights.linear_memory import Memory, decayed_count, unit


class ChunkProjection(Projection):
    """A matrix for each chunk; parameters: W, M (C, C), U (C, R), W_o and W_a (R, C), Psi or V."""

    def __init__(self, request: ProjectionRequest, source: OwnedWeights, memory: Memory) -> None:
        super().__init__(request)
        source.declare(self, request)
        out, width, rank = request.out_features, request.in_features, memory.rank
        self.rule: Rule = memory.rule
        self.decay = memory.decay
        self.chunk = memory.chunk

        def full(rows: int, columns: int) -> nn.Parameter:
            return drawn(rows, columns, std=columns**-0.5, uniform=True)

        self.mix = full(width, width)
        self.basis = full(width, rank)
        self.value = full(rank, width)
        self.key = full(rank, width)
        self.transform = full(out, width) if self.rule in SWAPS else None
        self.parameter_parts = {**self.parameter_parts, "transform": request.parts}
        self.back = full(width, width) if self.rule == "mlp" else None
        self.tau = nn.Parameter(torch.ones(1)) if self.rule == "mlp" else None
        self.gamma = nn.Parameter(torch.full((1,), memory.gamma))

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The sums of closed chunks and of the open one; in float32 at least."""
        rank, sums = len(self.key), torch.promote_types(dtype, torch.float32)
        return {
            f"{self.name}.{name}": torch.zeros(batch, rank, rank, device=device, dtype=sums)
            for name in ("closed", "open")
        }

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, out_features)."""
        T, S = x.shape[1], self.chunk
        before = use.offset % S
        o, a = unit(F.linear(x, self.value)), unit(F.linear(x, self.key))
        with without_autocast(x.device):
            matrices = self._matrices(self._statistics(o, a, use))
        y = _chunks(x, before, S) @ matrices.mT.to(x.dtype)
        y = y.flatten(1, 2)[:, before : before + T]
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _statistics(self, o: Tensor, a: Tensor, use: Use) -> Tensor:
        """A_c of each chunk that has one of these tokens, (B, N, R, R); continues the state."""
        state, T, S = use.state, o.shape[1], self.chunk
        before = use.offset % S
        o, a = _chunks(o, before, S), _chunks(a, before, S)
        B, N, _, R = o.shape
        in_last = before + T - (N - 1) * S
        sums = self._summed(o, a, S)
        closed, opened = o.new_zeros(B, R, R), o.new_zeros(B, R, R)
        if state is not None:
            closed, opened = (state[f"{self.name}.{n}"].to(o.dtype) for n in ("closed", "open"))
        starts = []
        for n in range(N):
            starts.append(closed)
            own = sums[:, n] if n > 0 else sums[:, 0] + self.decay ** (S - before) * opened
            if n < N - 1 or in_last == S:
                closed = self.decay**S * closed + own
        A = torch.stack(starts, 1)  # before the state is written, which may be among them
        if state is not None:
            last = torch.zeros_like(opened)
            if in_last < S:
                last = self._summed(o[:, -1:], a[:, -1:], in_last)[:, 0]
                if N == 1:
                    last = last + self.decay ** (in_last - before) * opened
            state[f"{self.name}.closed"].copy_(closed)
            state[f"{self.name}.open"].copy_(last)
        first = use.offset - before
        seen = torch.arange(first, first + N * S, S, device=o.device)
        return A / decayed_count(seen, self.decay, o.dtype).clamp(min=1.0)[:, None, None]

    def _summed(self, o: Tensor, a: Tensor, tokens: int) -> Tensor:
        """The sum over the first `tokens` of each chunk, decayed up to the last of them."""
        powers = torch.arange(tokens - 1, -1, -1, device=o.device, dtype=o.dtype)
        weight = self.decay**powers
        return (o[:, :, :tokens] * weight[:, None]).mT @ a[:, :, :tokens]

    def _matrices(self, A: Tensor) -> Tensor:
        """The matrix of each chunk, (B, N, out, C)."""
        W, basis = wide(self.weight), wide(self.basis)
        recalled = basis @ unit(A) @ basis.mT * len(basis) ** -0.5
        mix = wide(self.mix) + wide(self.gamma) * recalled
        update = Update(
            self.rule,
            self.in_features,
            mix=mix,
            back=None if self.back is None else wide(self.back),
            tau=None if self.tau is None else wide(self.tau),
        )
        transform = None if self.transform is None else wide(self.transform) @ mix
        return update.used(update(W, transform))

    def extra_repr(self) -> str:
        """Shape and the chunk."""
        return f"{super().extra_repr()}, {self.rule} in chunks of {self.chunk}"


def _chunks(x: Tensor, before: int, S: int) -> Tensor:
    """(B, T, width) -> (B, N, S, width), with zeros before and after to fill the chunks."""
    after = -(before + x.shape[1]) % S
    return torch.unflatten(F.pad(x, (0, 0, before, after)), 1, (-1, S))
