"""Mixture of experts: a router chooses a few networks for each token.

`y = sum_{i in top k} g_i E_i(x)`, plus shared experts that every token uses. Shazeer et al. 2017,
arXiv 1701.06538, eq. 1; fine-grained and shared experts: Dai et al. 2024 (DeepSeekMoE), arXiv
2401.06066, eq. 9. The routing is in `components/routing.py`, that by experts in `expert_choice.py`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from strawberry.components.dispatch import Dispatch, weighted
from strawberry.components.ffn.expert_choice import ExpertChoiceMoE
from strawberry.components.ffn.gated import FORMS, gated_width
from strawberry.components.ffn.mlp import ACTIVATIONS
from strawberry.components.routing import ExpertAssignment, ExpertRouter, RouterLosses
from strawberry.contracts import FFN, Aux, Site, Term, Use
from strawberry.errors import FieldError, StrawberryError

Form = Literal["bilinear", "geglu", "glu", "reglu", "swiglu", "gelu", "relu", "relu2"]


class MoE(FFN):
    """`sum_i g_i E_i(x)` over the experts that a router chooses for each token.

    With `routing: token` a token's result does not depend on other tokens, unless `capacity` is
    set. With `routing: expert` each expert takes its best tokens of a sequence, in any order, so a
    token's result depends on later ones. Such a model needs special sampling, and has no cache.
    Experts have no biases. The router always has its own parameters, for any weight source; they
    are of kind `router`.

    Args:
        routing: each `token` chooses its experts, or each `expert` its tokens.
        experts: routed experts E.
        active: number of experts for each token; with `routing: expert`, the mean number.
        n_ffn: hidden width of one expert; null divides the width of the dense network of that form
            by the number of active and shared experts, for about its FLOPs, in multiples of 8.
        expert: form of every expert: a gated network, or the `mlp` of that activation.
        gate: `softmax` over all experts, or a `sigmoid` for each expert.
        normalize: divide a token's gates by their sum; null does so unless `active` is 1 or experts
            choose.
        scale: factor on the gates.
        shared: experts that every token uses, in addition to the routed ones.
        noisy: noisy top-k: add learned noise to the logits in training.
        balance_loss: weight of the Switch balance loss, which is 1 at perfect balance; null takes
            0.01 if tokens choose, and 0 if experts choose, which are balanced.
        z_loss: weight of the mean squared logsumexp of the logits; ST-MoE uses 1e-3.
        importance_loss: weight of the squared variation of the gates' sums; the paper uses 0.1.
        load_loss: the same for the expected loads; needs `noisy`.
        bias_rate: step of the bias that balances the load without a loss. After each optimizer step
            an expert's bias moves by this amount; it affects the choice, not the gate. 0 for none.
            DeepSeek uses 1e-3.
        capacity: if tokens choose: in training an expert takes at most this many times its even
            share of a batch's tokens, in their order, and drops the rest; a token then depends on
            other sequences of the batch. Null drops nothing; evaluation never does. If experts
            choose: each takes this many times its even share of a sequence's tokens; null is 1.
    """

    def __init__(
        self,
        site: Site,
        *,
        routing: Literal["token", "expert"] = "token",
        experts: Annotated[int, Ge(1)] = 8,
        active: Annotated[int, Ge(1)] = 2,
        n_ffn: Annotated[int, Ge(1)] | None = None,
        expert: Form = "swiglu",
        gate: Literal["softmax", "sigmoid"] = "softmax",
        normalize: bool | None = None,
        scale: Annotated[float, Gt(0)] = 1.0,
        shared: Annotated[int, Ge(0)] = 0,
        noisy: bool = False,
        balance_loss: Annotated[float, Ge(0)] | None = None,
        z_loss: Annotated[float, Ge(0)] = 0.0,
        importance_loss: Annotated[float, Ge(0)] = 0.0,
        load_loss: Annotated[float, Ge(0)] = 0.0,
        bias_rate: Annotated[float, Ge(0)] = 0.0,
        capacity: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        self.form = expert
        self.capacity = capacity
        self.adjustable = () if capacity is None else ("capacity",)
        dense = gated_width(site.n_embd) if expert in FORMS else 4 * site.n_embd
        hidden = n_ffn if n_ffn is not None else -(-dense // (active + shared) // 8) * 8
        wide = 2 if expert in FORMS else 1
        self.router: ExpertRouter | ExpertChoiceMoE
        if routing == "expert":
            refused = (normalize, noisy, balance_loss, importance_loss, load_loss, bias_rate)
            _check_expert_choice(experts, active, *refused)
            taken = (capacity if capacity is not None else 1.0) * active
            self.causal = False
            self.router = ExpertChoiceMoE(
                site.n_embd, experts, taken / experts, gate=gate, scale=scale, z=z_loss
            )
        else:
            taken = active
            self.batch_independent = capacity is None
            self.by_micro_batch = () if capacity is None else ("capacity",)
            self.waits = Dispatch.WAITS
            balance = 0.01 if balance_loss is None else balance_loss
            self.router = ExpertRouter(
                site.n_embd,
                experts,
                active,
                gate=gate,
                normalize=active > 1 if normalize is None else normalize,
                scale=scale,
                noisy=noisy,
                bias_rate=bias_rate,
                losses=RouterLosses(balance, z_loss, importance_loss, load_loss),
            )
        names = ("up", "gate")[:wide]
        parts = dict.fromkeys(names, hidden)
        self.up = site.bank("up", experts, wide * hidden, site.n_embd, active=taken, parts=parts)
        self.down = site.bank("down", experts, site.n_embd, hidden, active=taken, output=True)
        # Several shared experts side by side are one network of their widths' sum.
        self.shared = nn.ModuleList()
        if shared:
            parts = dict.fromkeys(names, shared * hidden)
            self.shared.append(
                site.projection("shared_up", wide * shared * hidden, site.n_embd, parts=parts)
            )
            self.shared.append(
                site.projection("shared_down", site.n_embd, shared * hidden, output=True)
            )

    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """(B, T, C) -> (B, T, C); in training also losses and metrics."""
        up, down = self.up.matrices(use), self.down.matrices(use)
        if isinstance(self.router, ExpertChoiceMoE):
            y, terms = self._taken(x, self.router, use, up, down)
        else:
            y, terms = self._sent(x.flatten(0, 1), self.router, up, down)
        y = y.view(*x.shape[:2], -1)
        if self.shared:
            up_shared, down_shared = self.shared
            y = y + down_shared(self._act(up_shared(x, use)), use)
        return (y, terms) if self.training else y

    def _act(self, h: Tensor) -> Tensor:
        """The hidden values (..., F) from the input of the activation."""
        if self.form not in FORMS:
            return ACTIVATIONS[self.form](h)
        u, gate = h.chunk(2, dim=-1)
        return u * FORMS[self.form].activation(gate)

    def _taken(
        self, x: Tensor, router: ExpertChoiceMoE, use: Use, up: Tensor, down: Tensor
    ) -> tuple[Tensor, Aux]:
        """Each expert's tokens through it, summed: (B, T, C) -> (B T, C)."""
        if use.cache is not None:
            raise StrawberryError(
                "moe with `routing: expert` needs whole sequences, so it has no cache"
            )
        taken = router(x)
        rows = self._act(taken.rows(x.flatten(0, 1)) @ up.mT) @ down.mT
        return taken.combine(rows, x.shape[:2].numel()), taken.terms

    def _sent(
        self, x: Tensor, router: ExpertRouter, up: Tensor, down: Tensor
    ) -> tuple[Tensor, Aux]:
        """Each token through its experts: (N, C) -> (N, C)."""
        choice = router(x)
        if self.training and self.capacity is not None:
            y, dropped = self._bounded(x, choice, up, down, self.capacity)
            return y, (*choice.terms, Term("moe_dropped", dropped))
        return self._dropless(x, choice, up, down), choice.terms

    def _dropless(self, x: Tensor, choice: ExpertAssignment, up: Tensor, down: Tensor) -> Tensor:
        """Every token through all its experts: (N, C) -> (N, C)."""
        dispatch = Dispatch.of(choice)
        rows = self._act(dispatch.linear(dispatch.rows(x), up))
        return dispatch.combine(dispatch.linear(rows, down), choice.gate)

    def _bounded(
        self, x: Tensor, choice: ExpertAssignment, up: Tensor, down: Tensor, capacity: float
    ) -> tuple[Tensor, Tensor]:
        """The same with `capacity` rows for each expert; also the share of dropped rows."""
        (N, k), (E, _, C) = choice.expert.shape, up.shape
        rows = min(N, math.ceil(capacity * N * k / E))
        dispatch = Dispatch.of(choice)
        flat = choice.expert.flatten()
        rank = dispatch.place - (dispatch.ends - choice.counts)[flat]
        kept = rank < rows
        slot = torch.where(kept, flat * rows + rank, E * rows)  # the last row is thrown away
        token = torch.arange(N * k, device=x.device) // k
        filled = x.new_zeros(E * rows + 1, C).index_copy(0, slot, x.index_select(0, token))
        y = self._act(filled[:-1].view(E, rows, C) @ up.mT) @ down.mT
        y = torch.cat([y.flatten(0, 1), y.new_zeros(1, C)]).index_select(0, slot)
        return weighted(y.view(N, k, C), choice.gate), 1 - kept.to(torch.float32).mean()


def _check_expert_choice(
    experts: int,
    active: int,
    normalize: bool | None,
    noisy: bool,
    balance_loss: float | None,
    importance_loss: float,
    load_loss: float,
    bias_rate: float,
) -> None:
    """Raises FieldError for fields that don't apply if experts choose."""
    if active > experts:
        raise FieldError("active", f"must be at most experts = {experts}, got {active}")
    if normalize:
        raise FieldError(
            "normalize", "with `routing: expert` some tokens have no gates to normalise"
        )
    if noisy:
        raise FieldError("noisy", "noisy top-k needs `routing: token`")
    balancing = {
        "balance_loss": balance_loss,
        "importance_loss": importance_loss,
        "load_loss": load_loss,
        "bias_rate": bias_rate,
    }
    for field, value in balancing.items():
        if value:
            message = (
                "with `routing: expert` all experts take equally many tokens, so there is no "
                "load to balance"
            )
            raise FieldError(field, message)
