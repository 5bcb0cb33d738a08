"""Multi-head latent attention (DeepSeek-V2, DeepSeek-AI 2024, arXiv 2405.04434, eq. 9 to 19).

Keys and values of all heads come from one short vector for each token, the latent. The decoding
cache has only the latent and a rotated key that the heads share. N, P, E: widths of a head's
unrotated part, its rotated part and its values; R: width of the latent.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from strawberry.components.attention.scores import Scores
from strawberry.components.attention.softmax import attend, check_heads, head_width
from strawberry.contracts import Attention, Site, State, Use, interleaved


class MultiHeadLatentAttention(Attention):
    """Softmax attention with low-rank keys and values, whose cache stores their latent.

    `c = norm(x W_dkv^T)`; for each head `k = [c W_uk^T | rotate(x W_kr^T)]`, `v = c W_uv^T` and `q
    = [q_n | rotate(q_r)]`; scores are `q k^T / sqrt(N + P)`. The matrices W_dkv and W_kr are one
    projection, W_uk and W_uv another. Latents pass through the recipe's norm. Only the decoupled
    part is rotated; it stays unchanged if the positional component does not rotate.

    A call with a cache may skip computing keys and values: `q_n (c W_uk^T)^T = (q_n W_uk) c^T`. The
    heads then share the latent as key and value, and W_uv comes last. Both forms have the same
    result, and the one with fewer multiplications is taken. With a long cache, that is the absorbed
    form for few tokens and the plain one for many. Without a cache it is the plain form.

    Args:
        n_head: heads H.
        q_rank: width of the latent of the queries, `q = norm(x W_dq^T) W_uq^T`; null computes them
            from x.
        kv_rank: width R of the latent of keys and values; null takes 2 N. The paper has 4 N, with
            many more heads.
        nope_width: width N of a head's part without rotation; null takes `n_embd / n_head`.
        rope_width: width P of its rotated part, whose key is the same for all heads; null takes
            half of N, rounded up to an even number.
        v_width: width E of a head's values; null takes N.
    """

    honours = frozenset({"rotary"})
    separates = True
    rewinds = True

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        q_rank: Annotated[int, Ge(1)] | None = None,
        kv_rank: Annotated[int, Ge(1)] | None = None,
        nope_width: Annotated[int, Ge(1)] | None = None,
        rope_width: Annotated[int, Ge(1)] | None = None,
        v_width: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        super().__init__()
        nope = nope_width if nope_width is not None else head_width(n_head, site.n_embd)
        self.n_head = n_head
        self.nope_width = nope
        self.rope_width = rope_width if rope_width is not None else -(-nope // 4) * 2
        self.v_width = v_width if v_width is not None else nope
        self.kv_rank = kv_rank if kv_rank is not None else 2 * nope
        check_heads(site, n_head, self.rope_width, self.honours, "rope_width")
        self.dropout = site.dropout
        width = nope + self.rope_width
        self.scale = site.parametrization.score_scale(width) or width**-0.5
        self.q_down = site.projection("q_down", q_rank, site.n_embd) if q_rank else None
        self.q_norm = site.norm(q_rank) if q_rank else None
        queries = n_head * (nope + self.rope_width)
        turned = (n_head, self.rope_width)
        self.q = site.projection(
            "q",
            queries,
            q_rank or site.n_embd,
            parts=interleaved(n_head, {"q": (n_head, nope), "q_rope": turned}),
        )
        self.kv_down = site.projection(
            "kv_down",
            self.kv_rank + self.rope_width,
            site.n_embd,
            parts={"latent": self.kv_rank, "k_rope": self.rope_width},
        )
        self.kv_norm = site.norm(self.kv_rank)
        # Without a bias, since the absorbed form has the matrix alone.
        pairs = n_head * (nope + self.v_width)
        self.kv_up = site.projection(
            "kv_up",
            pairs,
            self.kv_rank,
            bias=False,
            parts=interleaved(n_head, {"k": (n_head, nope), "v": (n_head, self.v_width)}),
        )
        self.out = site.projection("out", site.n_embd, n_head * self.v_width, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, _ = x.shape
        hidden = x
        if self.q_down is not None and self.q_norm is not None:
            hidden = self.q_norm(self.q_down(x, use))
        q = self.q(hidden, use).view(B, T, self.n_head, -1).transpose(1, 2)
        q_nope, q_rope = torch.split(q, [self.nope_width, self.rope_width], dim=-1)
        q_rope = use.rotate(q_rope)
        latent, key = torch.split(self.kv_down(x, use), [self.kv_rank, self.rope_width], dim=-1)
        latent, key = self.kv_norm(latent), use.rotate(key[:, None])[:, 0]
        if use.state is not None:
            latent = _extended(use.state["latent"], latent, use.offset)
            key = _extended(use.state["key"], key, use.offset)
        absorbed = use.state is not None and self.absorbs(T, latent.shape[1])
        mix = self._absorbed if absorbed else self._plain
        y = mix(q_nope, q_rope, latent, key, use)
        return self.out(y.transpose(1, 2).reshape(B, T, -1), use)

    def absorbs(self, T: int, S: int) -> bool:
        """Return whether T queries over S keys cost fewer multiplications in the absorbed form.

        In the plain form, all S latents become keys and values. In the absorbed form, T queries and
        outputs pass through those matrices instead, and the products with keys and values are
        wider.
        """
        through = self.kv_rank * (self.nope_width + self.v_width)
        # Keys and values are filled up to the wider of both, for the fused kernels.
        own = max(self.nope_width + self.rope_width, self.v_width)
        plain = S * through + T * S * 2 * own
        return T * through + T * S * 2 * (self.kv_rank + self.rope_width) < plain

    def _plain(
        self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, key: Tensor, use: Use
    ) -> Tensor:
        """Each head with its own keys and values: (B, H, T, E)."""
        B, S, _ = latent.shape
        kv = self.kv_up(latent, use).view(B, S, self.n_head, -1).transpose(1, 2)
        k_nope, v = torch.split(kv, [self.nope_width, self.v_width], dim=-1)
        shared = key[:, None].to(kv.dtype).expand(-1, self.n_head, -1, -1)
        k = torch.cat([k_nope, shared], dim=-1)
        return attend(torch.cat([q_nope, q_rope], dim=-1), k, v, self._scores(use))

    def _absorbed(
        self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, key: Tensor, use: Use
    ) -> Tensor:
        """All heads over the latents: (B, H, T, E)."""
        matrix = self.kv_up.matrix(use).view(self.n_head, -1, self.kv_rank).to(q_nope.dtype)
        to_k, to_v = torch.split(matrix, [self.nope_width, self.v_width], dim=1)
        q = torch.cat([q_nope @ to_k, q_rope], dim=-1)
        k = torch.cat([latent, key], dim=-1)[:, None]
        return attend(q, k, latent[:, None], self._scores(use)) @ to_v.mT

    def _scores(self, use: Use) -> Scores:
        return Scores(
            documents=use.documents,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
            memo=use.memo,
        )

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The latent and the shared rotated key: R + P numbers a token."""
        return {
            "latent": torch.zeros(batch, length, self.kv_rank, device=device, dtype=dtype),
            "key": torch.zeros(batch, length, self.rope_width, device=device, dtype=dtype),
        }


def _extended(kept: Tensor, new: Tensor, offset: int) -> Tensor:
    """All rows so far; the new ones are written to the cache (B, length, width)."""
    end = offset + new.shape[1]
    kept[:, offset:end] = new
    return kept[:, :end].to(new.dtype)
