"""Token-level local-context mixture of experts over attention heads.

Each expert is a group of query heads with its own local window, and the rows of the mini-FFN that
read the heads' outputs. A router sends each token to a few experts, by that token alone. All
experts share keys and values, so the decoding state does not grow with their number.

For token t, its experts S_t and their gates g (x is normalised):

    q_e = rotate(rms(x_t W_q^e)),   k_s = rotate(rms(x_s W_k)),   v_s = x_s W_v
    a_e = softmax_{s: 0 <= t - s < w_e} (q_e . k_s / sqrt(D)) v_s
    [u | c] = sum_{e in S_t} g_e a_e W_swiglu^e

The sum equals one matrix over the concatenated parts of all experts, with zeros for the experts
that were not chosen: the concatenation of the local parts, without computing the zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from strawberry.components.attention.scores import Scores
from strawberry.components.attention.softmax import attend, extend_kv, new_kv
from strawberry.components.dispatch import Dispatch
from strawberry.components.norm.rmsnorm import unit_rms
from strawberry.components.routing import ExpertAssignment, ExpertRouter
from strawberry.contracts import Aux, Component, Site, State, Term, Use
from strawberry.errors import FieldError


class LocalExperts(Component):
    """From the normalised input (B, T, C) to `[u | c]` (B, T, 2 * hidden), as above.

    Args:
        site: the component's site.
        router: chooses among the routed experts.
        shared: experts that follow the routed ones and that every token uses, with gate 1.
        heads: query heads of one expert.
        width: of a head, D.
        kv_heads: key and value heads that the experts share; divides `heads`.
        hidden: width of the mini-FFN.
        windows: window of each expert, routed and shared; None for the whole past.
        qk_eps: added to the mean square in the QK-norm.
    """

    waits = Dispatch.WAITS
    window_of: Tensor | None

    def __init__(
        self,
        site: Site,
        *,
        router: ExpertRouter,
        shared: int,
        heads: int,
        width: int,
        kv_heads: int,
        hidden: int,
        windows: Sequence[int] | None,
        qk_eps: float,
    ) -> None:
        super().__init__()
        if kv_heads < 1 or heads % kv_heads:
            raise FieldError(
                "n_kv_head", f"an expert's {heads} heads can't share {kv_heads} key-value heads"
            )
        if windows is not None and len(windows) != router.experts + shared:
            raise FieldError(
                "window", f"got {len(windows)} windows for {router.experts + shared} experts"
            )
        self.router = router
        self.shared = shared
        self.heads = heads
        self.width = width
        self.scale = site.parametrization.score_scale(width)
        self.kv_heads = kv_heads
        self.qk_eps = qk_eps
        self.dropout = site.dropout
        self.window = None if windows is None else max(windows)
        differ = windows is not None and len(set(windows)) > 1
        # Not persistent: it follows from the recipe.
        own = torch.tensor(windows) if windows is not None and differ else None
        self.register_buffer("window_of", own, persistent=False)
        experts = router.experts + shared
        active = router.active + shared
        inside, kv = heads * width, (kv_heads, width)
        gated = {"up": hidden, "gate": hidden}
        q_parts = {"q": (heads, width)}
        self.q = site.bank("q", experts, inside, site.n_embd, active=active, parts=q_parts)
        self.kv = site.projection("kv", 2 * kv_heads * width, site.n_embd, parts={"k": kv, "v": kv})
        self.swiglu = site.bank("swiglu", experts, 2 * hidden, inside, active=active, parts=gated)

    def forward(self, x: Tensor, use: Use) -> tuple[Tensor, Aux]:
        """(B, T, C) -> (B, T, 2 * hidden), and in training losses and metrics."""
        B, T, _ = x.shape
        flat = x.flatten(0, 1)
        choice = self._with_shared(self.router(flat))
        dispatch = Dispatch.of(choice)
        q = dispatch.spread(dispatch.linear(dispatch.rows(flat), self.q.matrices(use)))
        k, v = self.kv(x, use).view(B, T, -1, self.width).transpose(1, 2).chunk(2, dim=1)
        k, v = extend_kv(use.rotate(unit_rms(k, self.qk_eps)), v, use, self.window)
        expert = choice.expert.view(B, T, -1)
        scores = Scores.of(
            use,
            k.shape[2],
            window=self.window,
            windows=self._windows(expert),
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        q = unit_rms(self._as_heads(q, B), self.qk_eps)
        y = attend(use.rotate(q), k, v, scores)
        rows = dispatch.linear(dispatch.sort(self._as_parts(y)), self.swiglu.matrices(use))
        z = dispatch.combine(rows, choice.gate).view(B, T, -1)
        return z, (*choice.terms, *self._context(expert, choice.gate, use))

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values of the longest window, for any number of experts."""
        return new_kv(batch, self.kv_heads, length, self.width, device, dtype, self.window)

    def _with_shared(self, choice: ExpertAssignment) -> ExpertAssignment:
        """The choice, with the shared experts after the routed ones, gate 1."""
        if not self.shared:
            return choice
        N, E = len(choice.expert), self.router.experts
        always = torch.arange(E, E + self.shared, device=choice.expert.device).expand(N, -1)
        return dataclasses.replace(
            choice,
            expert=torch.cat((choice.expert, always), dim=1),
            gate=torch.cat((choice.gate, choice.gate.new_ones(N, self.shared)), dim=1),
            counts=torch.cat((choice.counts, choice.counts.new_full((self.shared,), N))),
        )

    # The heads of a token's experts, side by side. Grouped attention wants those of one key-value
    # head next to each other: (key-value head, expert, heads that share it).

    def _as_heads(self, parts: Tensor, batch: int) -> Tensor:
        """(B T, K, heads * D) -> (B, heads * K, T, D)."""
        shape = (batch, -1, parts.shape[1], self.kv_heads, self.heads // self.kv_heads, self.width)
        return parts.view(shape).permute(0, 3, 2, 4, 1, 5).flatten(1, 3)

    def _as_parts(self, y: Tensor) -> Tensor:
        """(B, heads * K, T, D) -> (B T, K, heads * D)."""
        B, H, T, D = y.shape
        K = H // self.heads
        y = y.view(B, self.kv_heads, K, self.heads // self.kv_heads, T, D)
        return y.permute(0, 4, 2, 1, 3, 5).reshape(B * T, K, self.heads * D)

    def _windows(self, expert: Tensor) -> Tensor | None:
        """The window of each query: (B, T, K) -> (B, heads * K, T)."""
        if self.window_of is None:
            return None
        own = self.window_of[expert].transpose(1, 2)
        share = (self.kv_heads, own.shape[1], self.heads // self.kv_heads)
        return own[:, None, :, None].expand(-1, *share, -1).flatten(1, 3)

    def _context(self, expert: Tensor, gate: Tensor, use: Use) -> Aux:
        """In training: the mean window of a token's experts, weighted by their gates."""
        if not self.training or self.window_of is None:
            return ()
        gate = gate.detach().view(expert.shape)
        seen = torch.minimum(self.window_of[expert], use.positions[..., None] + 1)
        mean = (seen * gate).sum(-1) / gate.sum(-1)
        return (Term(f"{self.router.name}_window", mean.mean()),)
