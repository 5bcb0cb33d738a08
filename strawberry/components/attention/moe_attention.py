"""Mixture of attention heads (Zhang et al. 2022, MoA, arXiv 2210.05144).

`y_t = sum_{e in top k} g_e A_e(x_t) W_o^e` with `A_e = softmax(x_t W_q^e K^T / sqrt(D)) V`: keys
and values are shared by all experts, and an expert is a query and an output projection. Several
heads in an expert: Shen et al. 2024 (JetMoE), arXiv 2404.07413.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from strawberry.components.attention.scores import Scores
from strawberry.components.attention.softmax import attend, check_heads, extend_kv, new_kv
from strawberry.components.dispatch import Dispatch
from strawberry.components.routing import ExpertRouter, RouterLosses
from strawberry.contracts import Attention, Aux, Site, State, Use
from strawberry.errors import FieldError


class MoEAttention(Attention):
    """`sum_e g_e softmax(q_e k^T / sqrt(D)) v W_o^e` over the experts that a token chooses, causal.

    A token's k experts are k queries for each of the G shared key-value heads, of width D; only
    their projections are computed. A gate is the softmax over all experts, divided by the sum over
    the chosen ones, which the backward pass treats as a constant. The choice depends on the token
    alone, so the mixer is causal and the cache is that of its key-value heads. Banks have no
    biases.

    Args:
        experts: experts E.
        active: number of experts for each token, k.
        n_kv_head: shared key and value heads G; an expert has a query head for each.
        n_qkv: width of a token's queries together, k * G * D; null takes `n_embd`.
        qk_norm: normalise queries and keys over each head with the recipe's norm, before rotation.
        balance_loss: weight of the Switch balance loss, which is 1 at perfect balance.
        z_loss: weight of the mean squared logsumexp of the router's logits.
        bias_rate: step of the bias that balances the load without a loss, as in `moe`; 0 for none.
    """

    honours = frozenset({"rotary"})
    separates = True
    shares_keys = True
    waits = Dispatch.WAITS

    def __init__(
        self,
        site: Site,
        *,
        experts: Annotated[int, Ge(1)] = 8,
        active: Annotated[int, Ge(1)] = 2,
        n_kv_head: Annotated[int, Ge(1)] = 1,
        n_qkv: Annotated[int, Ge(1)] | None = None,
        qk_norm: bool = False,
        balance_loss: Annotated[float, Ge(0)] = 0.01,
        z_loss: Annotated[float, Ge(0)] = 0.001,
        bias_rate: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__()
        width = n_qkv if n_qkv is not None else site.n_embd
        queries = active * n_kv_head
        if width % queries:
            message = f"width {width} can't be split into {active} experts of {n_kv_head} heads"
            raise FieldError("n_qkv", message)
        self.n_kv_head = n_kv_head
        self.width = width // queries
        self.scale = site.parametrization.score_scale(self.width)
        check_heads(site, queries, self.width, self.honours, "n_qkv")
        self.dropout = site.dropout
        self.router = ExpertRouter(
            site.n_embd,
            experts,
            active,
            detached=True,
            bias_rate=bias_rate,
            losses=RouterLosses(balance=balance_loss, z=z_loss),
        )
        inside = n_kv_head * self.width
        heads = (n_kv_head, self.width)
        parts = {"query": heads}
        self.query = site.bank("query", experts, inside, site.n_embd, active=active, parts=parts)
        self.kv = site.projection("kv", 2 * inside, site.n_embd, parts={"k": heads, "v": heads})
        self.q_norm = site.norm(self.width) if qk_norm else None
        self.k_norm = site.norm(self.width) if qk_norm else None
        self.out = site.bank("out", experts, site.n_embd, inside, active=active, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """(B, T, C) -> (B, T, C); in training also the router's losses and metrics."""
        B, T, C = x.shape
        flat = x.flatten(0, 1)
        choice = self.router(flat)
        dispatch = Dispatch.of(choice)
        rows = dispatch.linear(dispatch.rows(flat), self.query.matrices(use))
        # Queries that share a key-value head lie next to each other: (B, G k, T, D).
        q = dispatch.spread(rows).view(B, T, -1, self.n_kv_head, self.width)
        q = q.permute(0, 3, 2, 1, 4).flatten(1, 2)
        k, v = self.kv(x, use).view(B, T, -1, self.width).transpose(1, 2).chunk(2, dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        k, v = extend_kv(use.rotate(k), v, use)
        dropout = self.dropout if self.training else 0.0
        scores = Scores.of(use, k.shape[2], scale=self.scale, dropout=dropout)
        y = attend(use.rotate(q), k, v, scores).reshape(B, self.n_kv_head, -1, T, self.width)
        parts = y.permute(0, 3, 2, 1, 4).reshape(B * T, -1, self.n_kv_head * self.width)
        rows = dispatch.linear(dispatch.sort(parts), self.out.matrices(use))
        out = dispatch.combine(rows, choice.gate).view(B, T, C)
        return (out, choice.terms) if self.training else out

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values: 2 * n_kv_head * D numbers a token, for any number of experts."""
        return new_kv(batch, self.n_kv_head, length, self.width, device, dtype)
