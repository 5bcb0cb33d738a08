"""The Expert Abundance: token-level local-context experts, and a SwiGLU mini-FFN over their parts.

Q, K, V -> local-context mixture of experts of scaled dot-product attention -> concatenated local
parts -> SwiGLU mini-FFN -> output projection; the residual is the block's. The pipeline is the
original project's. Its code has the form with one expert and a full window (there called
TheExpertAbundance); `local_experts.py` completes the mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor
from torch.nn import functional as F

from strawberry.components.attention.gated_head import GatedHead
from strawberry.components.attention.local_experts import LocalExperts
from strawberry.components.attention.scores import Scores
from strawberry.components.attention.softmax import (
    attend,
    check_heads,
    extend_kv,
    head_width,
    new_kv,
)
from strawberry.components.norm.rmsnorm import unit_rms
from strawberry.components.routing import ExpertRouter, RouterLosses
from strawberry.contracts import Attention, Aux, Site, State, Use, interleaved
from strawberry.errors import FieldError

Window = Annotated[int, Ge(1)]


class ExpertAbundance(Attention):
    """Softmax attention with QK-norm, whose heads are divided among routed experts.

    `a_e = softmax(rms(q_e) rms(k)^T / sqrt(D)) v` for expert e, with rotated q and k; then
    `[u | c] = sum_e g_e a_e W_e^T` over a token's experts, and `y = (u * silu(c)) W_o^T`.

    With one expert it is plain attention with a mini-FFN over the concatenated heads. The rows of
    its QKV matrix are `[q_h | k_h | v_h]` for each head h, as in the original's code. With several
    experts, a token's cost falls with the share of active experts, and the decoding state with the
    windows. The router always has its own parameters, for any weight source.

    Args:
        n_head: query heads H of all routed experts together.
        n_qkv: width of those heads together; null takes `n_embd`.
        n_ffn: hidden width of the mini-FFN; null takes `n_embd`.
        qk_eps: added to the mean square in the QK-norm, which has no gain.
        experts: routed experts E; each has H / E heads.
        active: number of experts for each token.
        shared: experts that every token uses, in addition to the routed ones and of the same size.
        n_kv_head: key and value heads that the experts share; null takes the heads of one expert.
        window: number of tokens that an expert sees, including the query's own: one number, or one
            for each expert, shared ones last; null for all.
        gate: a `sigmoid` for each expert, or a `softmax` over all experts.
        normalize: divide a token's gates by their sum; null does so unless `active` is 1.
        bias_rate: step of the bias that balances the load without a loss; 0 for none.
        balance_loss: weight of the Switch balance loss, which is 1 at perfect balance.
        z_loss: weight of the mean squared logsumexp of the router's logits.
    """

    honours = frozenset({"rotary", "bias"})
    separates = True
    shares_keys = True

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        n_qkv: Annotated[int, Ge(1)] | None = None,
        n_ffn: Annotated[int, Ge(1)] | None = None,
        qk_eps: Annotated[float, Gt(0)] = 1e-6,
        experts: Annotated[int, Ge(1)] = 1,
        active: Annotated[int, Ge(1)] = 1,
        shared: Annotated[int, Ge(0)] = 0,
        n_kv_head: Annotated[int, Ge(1)] | None = None,
        window: Window | Annotated[list[Window], MinLen(1)] | None = None,
        gate: Literal["sigmoid", "softmax"] = "sigmoid",
        normalize: bool | None = None,
        bias_rate: Annotated[float, Ge(0)] = 1e-3,
        balance_loss: Annotated[float, Ge(0)] = 0.0,
        z_loss: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__()
        width = n_qkv if n_qkv is not None else site.n_embd
        self.n_head = n_head
        self.width = head_width(n_head, width)
        self.scale = site.parametrization.score_scale(self.width)
        self.dropout = site.dropout
        self.qk_eps = qk_eps
        self.local: LocalExperts | None = None
        if experts > 1 or shared:
            self.honours = frozenset({"rotary"})
        check_heads(site, n_head, self.width, self.honours)
        if experts == 1 and not shared:
            if active > 1:
                raise FieldError("active", f"{active} experts can't be active: there is only one")
            self.window = _single(window)
            self.kv_heads = n_kv_head if n_kv_head is not None else n_head
            if self.kv_heads != n_head:
                raise FieldError(
                    "n_kv_head", "a single expert has as many heads as there are query heads"
                )
            parts = interleaved(n_head, dict.fromkeys("qkv", (n_head, self.width)))
            self.qkv = site.projection("qkv", 3 * width, site.n_embd, parts=parts)
            self.head = GatedHead(site, width, n_ffn)
            return
        if n_head % experts:
            raise FieldError("experts", f"{n_head} heads can't be divided among {experts} experts")
        hidden = n_ffn if n_ffn is not None else site.n_embd
        router = ExpertRouter(
            site.n_embd,
            experts,
            active,
            gate=gate,
            normalize=active > 1 if normalize is None else normalize,
            bias_rate=bias_rate,
            losses=RouterLosses(balance=balance_loss, z=z_loss),
            name="experts",
        )
        self.local = LocalExperts(
            site,
            router=router,
            shared=shared,
            heads=n_head // experts,
            width=self.width,
            kv_heads=n_kv_head if n_kv_head is not None else n_head // experts,
            hidden=hidden,
            windows=[window] * (experts + shared) if isinstance(window, int) else window,
            qk_eps=qk_eps,
        )
        self.out = site.projection("out", site.n_embd, hidden, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """(B, T, C) -> (B, T, C); with several experts, in training also losses and metrics."""
        if self.local is None:
            return self._plain(x, use)
        z, terms = self.local(x, use)
        u, gate = z.chunk(2, dim=-1)
        y = self.out(u * F.silu(gate), use)
        return (y, terms) if self.training else y

    def _plain(self, x: Tensor, use: Use) -> Tensor:
        B, T, _ = x.shape
        per_head = self.qkv(x, use).view(B, T, self.n_head, 3 * self.width).transpose(1, 2)
        q, k, v = per_head.chunk(3, dim=-1)
        # A rotation keeps the mean square, so this is the norm after the rotation too.
        q, k = unit_rms(q, self.qk_eps), unit_rms(k, self.qk_eps)
        k, v = extend_kv(use.rotate(k), v, use, self.window)
        scores = Scores.of(
            use,
            k.shape[2],
            n_head=self.n_head,
            window=self.window,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        y = attend(use.rotate(q), k, v, scores)
        return self.head(y.transpose(1, 2).reshape(B, T, -1), use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values: 2 * D numbers a token and key-value head, of the longest window."""
        if self.local is not None:
            return self.local.new_state(batch, length, device, dtype)
        return new_kv(batch, self.kv_heads, length, self.width, device, dtype, self.window)


def _single(window: int | Sequence[int] | None) -> int | None:
    """The window of a single expert."""
    if window is None or isinstance(window, int):
        return window
    if len(window) != 1:
        raise FieldError("window", f"got {len(window)} windows for one expert")
    return window[0]
