"""Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762, eq. 1), and its extensions.

Grouped queries: Ainslie et al. 2023, arXiv 2305.13245. QK-norm: Henry et al. 2020, arXiv
2010.04245, here as root-mean-square normalisation of each head. Sliding window: Beltagy et al.
2020, arXiv 2004.05150, section 3.1. Sink: OpenAI 2025 (gpt-oss), arXiv 2508.10925, section 2.2;
with score 0 it is Miller's softmax1. Output gate: Qiu et al. 2025, arXiv 2505.06708, eq. 5. Value
embeddings: Zhou et al. 2024, arXiv 2410.17897, in the form that reads them from the tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from strawberry.components.attention.scores import Scores
from strawberry.components.attention.softmax import (
    attend,
    check_heads,
    extend_kv,
    head_width,
    new_kv,
)
from strawberry.contracts import Attention, Site, State, Use, draw
from strawberry.errors import FieldError


class MultiHeadAttention(Attention):
    """`softmax(q k^T / sqrt(D)) v` for each head.

    Args:
        n_head: query heads H.
        n_kv_head: key and value heads; null takes `n_head`, 1 is multi-query attention.
        n_qkv: width of all query heads together; null takes `n_embd`.
        qk_norm: normalise queries and keys over each head with the recipe's norm, before rotation.
        window: number of tokens that a query sees, including itself; null for all. The cache stores
            as many.
        sink: give each head a key with a learned score, 0 at the start, and a zero value, which can
            absorb weight.
        temperature: initial value of a learned factor on the queries of each head; null for none.
        gate: multiply the heads' outputs by a sigmoid of the input, `elementwise` or one for each
            head; null for none.
        causal: whether a token sees only tokens before it and itself. Without it there is no
            generation token by token; for objectives such as `masked_diffusion`.
        value_embedding: add a vector for each token id to the values, from the block's own table,
            which starts at zero and has `vocab_size` rows.
    """

    honours = frozenset({"rotary", "bias", "context"})
    separates = True
    shares_keys = True
    rewinds = True
    parameter_kinds = {"values.weight": "embedding"}

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        n_kv_head: Annotated[int, Ge(1)] | None = None,
        n_qkv: Annotated[int, Ge(1)] | None = None,
        qk_norm: bool = False,
        window: Annotated[int, Ge(1)] | None = None,
        sink: bool = False,
        temperature: Annotated[float, Gt(0)] | None = None,
        gate: Literal["elementwise", "headwise"] | None = None,
        causal: bool = True,
        value_embedding: bool = False,
    ) -> None:
        super().__init__()
        if not causal:  # what is filled up at the end would be seen, and a cache be out of date
            self.causal = self.cacheable = self.routable = False
        width = n_qkv if n_qkv is not None else site.n_embd
        self.n_head = n_head
        self.width = head_width(n_head, width)
        self.n_kv_head = n_kv_head if n_kv_head is not None else n_head
        if n_head % self.n_kv_head:
            raise FieldError(
                "n_kv_head", f"{n_head} query heads can't share {self.n_kv_head} key-value heads"
            )
        check_heads(site, n_head, self.width, self.honours)
        self.scale = site.parametrization.score_scale(self.width)
        self.window = window
        self.adjustable = () if window is None else ("window",)
        self.rewinds = window is None and causal  # a ring has lost what it wrote over
        self.dropout = site.dropout
        self.heads = [n_head, self.n_kv_head]
        q, kv = (n_head, self.width), (self.n_kv_head, self.width)
        self.qkv = site.projection(
            "qkv",
            (n_head + 2 * self.n_kv_head) * self.width,
            site.n_embd,
            parts={"q": q, "k": kv, "v": kv},
        )
        self.q_norm = site.norm(self.width) if qk_norm else None
        self.k_norm = site.norm(self.width) if qk_norm else None
        self.sink = nn.Parameter(torch.zeros(n_head)) if sink else None
        self.temperature = (
            nn.Parameter(torch.full((n_head,), temperature)) if temperature is not None else None
        )
        self.gate = None
        if gate is not None:
            gates = width if gate == "elementwise" else n_head
            heads = (n_head, gates // n_head)
            self.gate = site.projection("gate", gates, site.n_embd, parts={"gate": heads})
        self.values: nn.Embedding | None = None
        if value_embedding:
            shape = (site.vocab_size, self.n_kv_head * self.width)
            self.values = nn.Embedding(*shape, _weight=torch.empty(shape))
            draw(self.values.weight, 0.0, uniform=False)
        self.out = site.projection("out", site.n_embd, width, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, _ = x.shape
        heads = self.qkv(x, use).view(B, T, -1, self.width).transpose(1, 2)
        qk, v = heads.split((self.n_head + self.n_kv_head, self.n_kv_head), dim=1)
        q, k = self._turned(qk, use)
        if self.values is not None:
            assert use.tokens is not None
            added = self.values(use.tokens).view(B, T, self.n_kv_head, self.width)
            v = v + added.transpose(1, 2).to(v.dtype)
        k, v = extend_kv(k, v, use, self.window)
        q, k, added = use.relate(q, k)
        scores = Scores.of(
            use,
            k.shape[2],
            n_head=self.n_head,
            added=added,
            window=self.window,
            sink=self.sink,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
            causal=self.causal,
        )
        y = attend(q, k, v, scores).transpose(1, 2)
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(x, use)).view(B, T, self.n_head, -1)
        return self.out(y.reshape(B, T, -1), use)

    def _turned(self, qk: Tensor, use: Use) -> tuple[Tensor, Tensor]:
        """Rotated queries and keys; as one tensor, if nothing separates them before."""
        if self.q_norm is None and self.temperature is None:
            q, k = torch.split(use.rotate(qk), self.heads, dim=1)
            return q, k
        q, k = torch.split(qk, self.heads, dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.temperature is not None:
            q = q * self.temperature.to(q.dtype)[:, None, None]
        return use.rotate(q), use.rotate(k)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values: 2 * n_kv_head * D numbers a token, of the last `window` tokens."""
        return new_kv(batch, self.n_kv_head, length, self.width, device, dtype, self.window)
