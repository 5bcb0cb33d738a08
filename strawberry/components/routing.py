"""Routing tokens to experts: gates, balance losses and the balancing bias.

N tokens, C model width, E experts, k active ones for each token. Everything here is computed in
float32 for any precision of the model, because a choice depends on small differences. A token's
choice depends on that token alone. Only losses and metrics, which don't affect the same forward
pass, look at several tokens: at the whole batch if ranks share it. Balance, importance and load
losses are functions of means over tokens, not means. For a step of several micro-batches they are
averages over micro-batches, weighted by tokens, which differ from the losses of the whole step.

Sources: noisy top-k, importance and load losses: Shazeer et al. 2017, arXiv 1701.06538, eq. 3-11;
balance loss: Fedus et al. 2021 (Switch), arXiv 2101.03961, eq. 4-6; z-loss: Zoph et al. 2022
(ST-MoE), arXiv 2202.08906, eq. 5; bias: Wang et al. 2024, arXiv 2408.15664, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import Aux, Component, Term, all_reduce_sum, draw, wide, without_autocast
from strawberry.errors import FieldError

R = TypeVar("R")

GATE_STD = 0.02
"""Initial standard deviation of a router's matrix: all experts nearly equal, without ties."""


@dataclass(frozen=True, slots=True)
class ExpertAssignment:
    """The chosen experts: `expert` and `gate` are (N, k), `counts` (E,) the tokens of each."""

    expert: Tensor
    gate: Tensor
    counts: Tensor
    terms: Aux


@dataclass(frozen=True, slots=True)
class RouterLosses:
    """Weights of the auxiliary losses; 0 disables one."""

    balance: float = 0.0
    z: float = 0.0
    importance: float = 0.0
    load: float = 0.0


class ExpertRouter(Component):
    """Top-k token choice.

    Args:
        n_embd: model width.
        experts: number of experts.
        active: number of experts for each token.
        gate: `softmax` over all experts, or a `sigmoid` for each expert.
        normalize: divide a token's gates by their sum.
        detached: treat that sum as a constant in the backward pass, so that the router also learns
            from the size of its gates.
        scale: factor on the gates.
        noisy: add learned noise to the logits in training.
        bias_rate: step of the bias that balances the load; 0 for none.
        losses: weights of the auxiliary losses.
        name: prefix of the names of losses and metrics.
    """

    precise_buffers = ("bias",)
    parameter_kinds = {"weight": "router", "noise": "router"}

    bias: Tensor | None
    load: Tensor

    def __init__(
        self,
        n_embd: int,
        experts: int,
        active: int,
        *,
        gate: Literal["softmax", "sigmoid"] = "softmax",
        normalize: bool = True,
        detached: bool = False,
        scale: float = 1.0,
        noisy: bool = False,
        bias_rate: float = 0.0,
        losses: RouterLosses | None = None,
        name: str = "moe",
    ) -> None:
        super().__init__()
        _check(experts, active, gate, normalize and not detached, noisy, bias_rate, losses)
        self.name = name
        self.experts = experts
        self.active = active
        self.gate = gate
        self.normalize = normalize
        self.detached = detached
        self.exact_gradient = not detached
        self.scale = scale
        self.bias_rate = bias_rate
        self.losses = losses if losses is not None else RouterLosses()
        weights = {
            "balance_loss": self.losses.balance,
            "importance_loss": self.losses.importance,
            "load_loss": self.losses.load,
            "noisy": noisy,
        }
        self.by_micro_batch = tuple(field for field, weight in weights.items() if weight)
        # With noise, which decides at the start, both matrices start at zero, as in the paper.
        self.weight = nn.Parameter(torch.zeros(experts, n_embd))
        self.noise = nn.Parameter(torch.zeros(experts, n_embd)) if noisy else None
        if not noisy:
            draw(self.weight, GATE_STD, uniform=False)
        self.register_buffer("bias", torch.zeros(experts) if bias_rate else None)
        # Tokens that chose each expert since the last step; 0 whenever a checkpoint is written.
        load = torch.zeros(experts, dtype=torch.int64)
        self.register_buffer("load", load, persistent=False)

    def forward(self, x: Tensor) -> ExpertAssignment:
        """(N, C) -> the chosen experts; in training also losses and metrics."""
        return precise(self._choose, x)

    def _choose(self, x: Tensor) -> ExpertAssignment:
        clean = F.linear(x, self.weight.to(x.dtype))
        logits, spread = clean, None
        if self.noise is not None and self.training:
            spread = F.softplus(F.linear(x, self.noise.to(x.dtype)))
            logits = clean + torch.randn_like(clean) * spread
        scores = logits.sigmoid() if self.gate == "sigmoid" else logits.softmax(-1)
        expert = (scores if self.bias is None else scores + self.bias).topk(self.active).indices
        gate = scores.gather(-1, expert)
        if self.normalize:
            total = gate.sum(-1, keepdim=True)
            gate = gate / ((total.detach() if self.detached else total) + 1e-9)
        flat = expert.flatten()
        counts = flat.new_zeros(self.experts).scatter_add_(0, flat, torch.ones_like(flat))
        terms: Aux = ()
        if self.training:
            chosen = all_reduce_sum(counts)
            self.load.add_(chosen)
            terms = self._terms(clean, logits, spread, scores, expert, gate, chosen)
        return ExpertAssignment(expert, gate * self.scale, counts, terms)

    def _terms(
        self,
        clean: Tensor,
        logits: Tensor,
        spread: Tensor | None,
        scores: Tensor,
        expert: Tensor,
        gate: Tensor,
        counts: Tensor,
    ) -> Aux:
        share = scores / scores.sum(-1, keepdim=True) if self.gate == "sigmoid" else scores
        terms = [
            Term(f"{self.name}_max_violation", counts / counts.sum(), read=max_violation),
            Term(f"{self.name}_entropy", entropy(share.detach())),
        ]
        weights = self.losses
        if weights.balance:
            terms.append(Term(f"{self.name}_balance", balance_loss(share, counts), weights.balance))
        if weights.z:
            terms.append(Term(f"{self.name}_z", z_loss(clean), weights.z))
        if weights.importance:
            gates = torch.zeros_like(scores).scatter(-1, expert, gate)
            terms.append(
                Term(
                    f"{self.name}_importance",
                    variation(all_reduce_sum(gates.sum(0))),
                    weights.importance,
                )
            )
        if weights.load and spread is not None:
            load = all_reduce_sum(expected_load(clean, logits, spread, self.active))
            terms.append(Term(f"{self.name}_load", variation(load), weights.load))
        return tuple(terms)

    @torch.no_grad()
    def after_step(self) -> None:
        """Raise the bias of experts below their share, lower that of the others."""
        if self.bias is not None:
            load = self.load.double()
            self.bias += self.bias_rate * torch.sign(load.mean() - load).to(self.bias.dtype)
            self.bias -= self.bias.mean()
        self.load.zero_()

    def extra_repr(self) -> str:
        """The parameters of the choice."""
        return f"{self.active} of {self.experts}, {self.gate}"


def precise(compute: Callable[[Tensor], R], x: Tensor) -> R:
    """`compute(x)` with `x` in float32 at least, without autocast."""
    with without_autocast(x.device):
        return compute(wide(x))


def balance_loss(share: Tensor, counts: Tensor) -> Tensor:
    """Switch: `E sum_i f_i P_i` with f the share of choices, P the mean gate; 1 if balanced."""
    fraction = counts.to(share.dtype) / counts.sum()
    return share.shape[-1] * (fraction * share.mean(0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """The mean square of `logsumexp(logits)`, which keeps them small."""
    return logits.logsumexp(-1).square().mean()


def variation(x: Tensor) -> Tensor:
    """The squared coefficient of variation, `var(x) / (mean(x)^2 + 1e-10)`."""
    return x.var(correction=0) / (x.mean().square() + 1e-10)


def expected_load(clean: Tensor, noisy: Tensor, spread: Tensor, active: int) -> Tensor:
    """(E,) the expected number of tokens of each expert if its noise is redrawn.

    `P_i = Phi((clean_i - t_i) / spread_i)`, with t_i the k-th largest noisy logit without i's own.
    """
    top = noisy.topk(active + 1).values
    last, next_one = top[:, active - 1, None], top[:, active, None]
    threshold = torch.where(noisy > next_one, next_one, last)
    return torch.special.ndtr((clean - threshold) / spread).sum(0)


def max_violation(counts: Tensor) -> Tensor:
    """Excess of the fullest expert over its share: 0 if balanced, E/k - 1 at most."""
    load = counts.to(torch.float32)
    return load.max() / load.mean() - 1


def entropy(share: Tensor) -> Tensor:
    """The mean entropy of a token's distribution over experts, in nats: at most ln E."""
    return torch.special.entr(share).sum(-1).mean()


def _check(
    experts: int,
    active: int,
    gate: str,
    normalize: bool,
    noisy: bool,
    bias_rate: float,
    losses: RouterLosses | None,
) -> None:
    if active > experts:
        raise FieldError("active", f"must be at most experts = {experts}, got {active}")
    if normalize and active == 1:
        message = (
            "with one active expert the normalised gate is always 1, and the router can't learn"
        )
        raise FieldError("normalize", message)
    if noisy and gate != "softmax":
        raise FieldError("noisy", "noisy top-k needs `gate: softmax`")
    if noisy and bias_rate:
        raise FieldError(
            "bias_rate", "the bias and noisy top-k exclude each other; choose one way to balance"
        )
    if losses is not None and losses.load and not noisy:
        raise FieldError("load_loss", "the load loss needs `noisy: true`")
    if losses is not None and losses.load and active == experts:
        raise FieldError("load_loss", "with all experts active there is no load to balance")
