"""Expert choice: each expert takes its best tokens (Zhou et al. 2022).

Arxiv 2202.09368, section 3.2: `S = softmax(X W^T)`, and expert e takes the r tokens of largest
`S[:, e]`, with those values as gates. Here the choice is within one sequence, so sequences don't
depend on each other. A token's experts still depend on later tokens, so this is not causal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.components.routing import GATE_STD, entropy, precise, z_loss
from strawberry.contracts import Aux, Component, Term, draw


@dataclass(frozen=True, slots=True)
class TokensTaken:
    """The experts' tokens: `token` and `gate` are (E, B, r); token numbers count over the batch."""

    token: Tensor
    gate: Tensor
    terms: Aux

    def rows(self, x: Tensor) -> Tensor:
        """The tokens of each expert: (B T, C) -> (E, B r, C)."""
        return x.index_select(0, self.token.flatten()).view(len(self.token), -1, x.shape[-1])

    def combine(self, rows: Tensor, tokens: int) -> Tensor:
        """For each token the weighted sum of its experts' rows: (E, B r, C) -> (tokens, C)."""
        parts = rows.flatten(0, 1) * self.gate.flatten()[:, None]
        total = parts.new_zeros(tokens, rows.shape[-1])
        return total.index_add(0, self.token.flatten(), parts).to(rows.dtype)


class ExpertChoiceMoE(Component):
    """Each expert's best tokens of a sequence.

    Args:
        n_embd: model width.
        experts: number of experts.
        share: fraction of a sequence's tokens that each expert takes, rounded up.
        gate: `softmax` over experts, or a `sigmoid` for each expert.
        scale: factor on the gates.
        z: weight of the z-loss.
    """

    parameter_kinds = {"weight": "router"}

    def __init__(
        self,
        n_embd: int,
        experts: int,
        share: float,
        *,
        gate: Literal["softmax", "sigmoid"] = "softmax",
        scale: float = 1.0,
        z: float = 0.0,
    ) -> None:
        super().__init__()
        self.share = share
        self.gate = gate
        self.scale = scale
        self.z = z
        self.weight = nn.Parameter(torch.zeros(experts, n_embd))
        draw(self.weight, GATE_STD, uniform=False)

    def taken_of(self, length: int) -> int:
        """Number of tokens that an expert takes of a sequence of that length."""
        return min(length, math.ceil(self.share * length))

    def forward(self, x: Tensor) -> TokensTaken:
        """(B, T, C) -> each expert's tokens; in training also losses and metrics."""
        return precise(self._choose, x)

    def _choose(self, x: Tensor) -> TokensTaken:
        B, T, _ = x.shape
        logits = F.linear(x, self.weight.to(x.dtype))
        scores = logits.sigmoid() if self.gate == "sigmoid" else logits.softmax(-1)
        gate, token = scores.permute(2, 0, 1).topk(self.taken_of(T), dim=-1)
        token = token + T * torch.arange(B, device=x.device)[:, None]
        terms = self._terms(logits, scores, token) if self.training else ()
        return TokensTaken(token, gate * self.scale, terms)

    def _terms(self, logits: Tensor, scores: Tensor, token: Tensor) -> Aux:
        share = scores.detach()
        share = share / share.sum(-1, keepdim=True)
        seen = scores.new_zeros(scores.shape[:2].numel())
        seen = seen.index_fill(0, token.flatten(), 1.0)
        terms = [Term("moe_entropy", entropy(share)), Term("moe_untaken", 1 - seen.mean())]
        if self.z:
            terms.append(Term("moe_z", z_loss(logits), self.z))
        return tuple(terms)

    def extra_repr(self) -> str:
        """The parameters of the choice."""
        return f"{len(self.weight)} experts, {self.share:g} of the tokens each, {self.gate}"
