"""Silia: attention in place of attention and FFN.

`[u | g] = A1(x)`, `y = A2(u * silu(g))`, where A1 and A2 are attentions with, for each head:

    q, k = tau_q rms(rotate(q)), tau_k rms(rotate(k))              sharpened QK-norm
    y[t] = softmax over a learned sink and the keys up to t        attention sink
    y[t] -= (y[t] . v[t]) v[t] / |v[t]|^2                          exclusive self-attention
    y[t] *= sigmoid(g[t])                                          output gate

The design is the original project's; the gate is Qiu et al. 2025, arXiv 2505.06708, exclusive
self-attention is arXiv 2603.09078.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import Attention, Component, Site, State, Use, interleaved, wide
from strawberry.errors import FieldError


class Silia(Attention):
    """Two gated attentions, a SwiGLU gate between them; a block with it needs no FFN.

    `[u | g] = A_1(x)`, `y = A_2(u * silu(g))`. Each head of A_1 and A_2 has sharpened QK-norm,
    a learned sink, no part along the token's own value, and a gate `y_t <- y_t * sigmoid(g_t)`.

    Args:
        n_head: heads H of each of the two attentions.
        n_qkv: width of all heads together; null gives each head the width of the model.
        temperature: what queries, and what keys, are multiplied by at the start; both are learned.
        xsa: take a token's own value out of what its heads return (exclusive self-attention).
        sees_itself: whether a token attends to itself. The author's code has it false: there a
            token sees the sink and the tokens before it.
        qk_eps: added to the mean square in the QK-norm, which has no gain.
    """

    honours = frozenset({"rotary"})
    separates = True

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        n_qkv: Annotated[int, Ge(1)] | None = None,
        temperature: Annotated[float, Gt(0)] = 1.2,
        xsa: bool = True,
        sees_itself: bool = True,
        qk_eps: Annotated[float, Gt(0)] = 1e-6,
    ) -> None:
        super().__init__()
        width = n_qkv if n_qkv is not None else n_head * site.n_embd
        if width % n_head:
            raise FieldError("n_qkv", f"width {width} can't be split into {n_head} heads")
        if "rotary" in site.positional.places:
            try:
                site.positional.check(n_head, width // n_head)
            except ValueError as error:
                raise FieldError("n_head", str(error)) from error
        fields: dict[str, Any] = {
            "n_head": n_head,
            "width": width // n_head,
            "temperature": temperature,
            "xsa": xsa,
            "sees_itself": sees_itself,
            "qk_eps": qk_eps,
        }
        self.first = GatedAttention(site, "first", 2 * site.n_embd, output=False, **fields)
        self.second = GatedAttention(site, "second", site.n_embd, output=True, **fields)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        u, gate = self.first(x, use).chunk(2, dim=-1)
        return self.second(u * F.silu(gate), use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values of both attentions: 4 * n_qkv numbers a token."""
        shape = (batch, self.first.n_head, length, self.first.width)
        names = [f"{part}_{name}" for part in ("first", "second") for name in "kv"]
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in names}


class GatedAttention(Component):
    """One of Silia's attentions: (B, T, C) -> (B, T, out_features).

    The rows of its matrix are `[q_h | k_h | v_h | g_h]` for each head h, as in the author's code.
    """

    parameter_kinds = {"sink": "vector"}

    def __init__(
        self,
        site: Site,
        name: str,
        out_features: int,
        *,
        output: bool,
        n_head: int,
        width: int,
        temperature: float,
        xsa: bool,
        sees_itself: bool,
        qk_eps: float,
    ) -> None:
        super().__init__()
        self.name = name
        self.n_head = n_head
        self.width = width
        self.xsa = xsa
        self.sees_itself = sees_itself
        self.qk_eps = qk_eps
        self.dropout = site.dropout
        inside = n_head * width
        heads = interleaved(n_head, dict.fromkeys("qkvg", (n_head, width)))
        self.qkvg = site.projection(f"{name}_qkvg", 4 * inside, site.n_embd, parts=heads)
        parts = None if output else {"up": out_features // 2, "gate": out_features // 2}
        self.out = site.projection(f"{name}_out", out_features, inside, output=output, parts=parts)
        self.temperature = nn.Parameter(torch.full((2,), temperature))
        self.sink = nn.Parameter(torch.zeros(n_head, 2 * width))  # [key | value] of each head

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, out_features)."""
        B, T, _ = x.shape
        heads = self.qkvg(x, use).view(B, T, self.n_head, -1).transpose(1, 2)
        q, k, v, gate = heads.chunk(4, dim=-1)
        # A rotation keeps the mean square, so this is the norm after the rotation too.
        tau_q, tau_k = self.temperature.to(q.dtype)
        q, k = self._unit(use.rotate(q)) * tau_q, self._unit(use.rotate(k)) * tau_k
        keys, values = self._extend(k, v, use)
        sink_k, sink_v = self.sink.to(q.dtype)[None, :, None].expand(B, -1, -1, -1).chunk(2, -1)
        y = F.scaled_dot_product_attention(
            q,
            torch.cat((sink_k, keys.to(q.dtype)), dim=2),
            torch.cat((sink_v, values.to(q.dtype)), dim=2),
            attn_mask=self._visible(T, keys.shape[2], use),
            dropout_p=self.dropout if self.training else 0.0,
        )
        if self.xsa:
            own = F.normalize(wide(v), dim=-1)
            y = (y - (y * own).sum(-1, keepdim=True) * own).to(v.dtype)
        y = y * torch.sigmoid(gate)
        return self.out(y.transpose(1, 2).reshape(B, T, -1), use)

    def _unit(self, x: Tensor) -> Tensor:
        return F.rms_norm(wide(x), (self.width,), None, self.qk_eps).to(x.dtype)

    def _extend(self, k: Tensor, v: Tensor, use: Use) -> tuple[Tensor, Tensor]:
        """Keys and values up to now: those of the cache and these, which are written to it."""
        if use.state is None:
            return k, v
        end = use.offset + k.shape[2]
        whole = []
        for name, new in (("k", k), ("v", v)):
            kept = use.state[f"{self.name}_{name}"]
            kept[:, :, use.offset : end] = new
            whole.append(kept[:, :, :end])
        return whole[0], whole[1]

    def _visible(self, T: int, S: int, use: Use) -> Tensor:
        """Mask of each of the last T of S tokens: the sink, then keys; (T, 1 + S) or batched."""
        last = S - T if self.sees_itself else S - T - 1
        visible = torch.ones(T, S, dtype=torch.bool, device=use.positions.device).tril(last)
        if use.documents is not None:
            documents = use.documents
            visible = visible & (documents[:, None, :, None] == documents[:, None, None, :])
        return F.pad(visible, (1, 0), value=True)
