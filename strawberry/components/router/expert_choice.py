"""Each step takes the tokens with its highest scores (Mixture-of-Recursions, expert choice).

Bae et al. 2025, arXiv 2507.10524, section 2.2.1: step r takes the top share of the sequence among
the tokens of step r - 1 (hierarchical filtering). The top of a sequence depends on later tokens,
which don't exist during generation; so training is not causal. Evaluation and generation are
causal: a token continues by its own score, against a threshold. Training teaches it by an auxiliary
loss on the score itself, or by a second router.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import torch
from annotated_types import Ge, Gt, Le, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.components.router.scores import ScoringRouter
from strawberry.components.routing import precise
from strawberry.contracts import Aux, Component, Routed, RouterSite, State, Term, has_values


class ExpertChoiceRouter(ScoringRouter):
    """Top-k tokens for each step in training, a threshold otherwise.

    `y = x + a sigmoid(l) f(x)` for tokens that step r takes, by the score `l = theta_r x^T`;
    else y is x.

    Args:
        capacity: fraction of the sequence that each step takes, falling; null takes 1, (R-1)/R, ...
            1/R.
        capacity_warmup: number of optimizer steps in which the fractions fall from 1, along half a
            cosine.
        scale: factor on the gates.
        learn: how single tokens learn their choice: `aux_loss` raises the scores of chosen tokens
            and lowers those of others; `aux_router` trains a second network that predicts the
            choice.
        aux_loss: weight of that binary cross-entropy.
        z_loss: weight of the mean squared logit.
    """

    exact = True
    teachable = True

    optimizer_steps: Tensor

    def __init__(
        self,
        site: RouterSite,
        *,
        capacity: Annotated[list[Annotated[float, Gt(0), Le(1)]], MinLen(1)] | None = None,
        capacity_warmup: Annotated[int, Ge(0)] = 0,
        scale: Annotated[float, Gt(0)] = 0.1,
        learn: Literal["aux_loss", "aux_router"] = "aux_loss",
        aux_loss: Annotated[float, Ge(0)] = 1e-3,
        z_loss: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__(site, capacity, scale)
        self.causal = False  # as modules are built in training mode
        self.capacity_warmup = capacity_warmup
        self.aux_loss = aux_loss
        self.z_loss = z_loss
        self.predictors = nn.ModuleList()
        if learn == "aux_router":
            self.predictors.extend(Predictor(site.n_embd) for _ in range(site.steps))
        self.register_buffer("optimizer_steps", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> Self:
        """The top of a sequence chooses in training; in evaluation the threshold does, causally."""
        self.causal = not mode
        return super().train(mode)

    def teach(self, on: bool) -> None:
        """Use top-k in evaluation too, to measure the difference between threshold and top-k."""
        self.causal = not (on or self.training)

    def route(
        self, x: Tensor, step: int, carried: State, length: int, real: Tensor | None
    ) -> Routed:
        """The top of the remaining tokens (B, K, C); in evaluation those above the threshold."""
        logits = self.logits(x, step)
        kept = {"gate": self.scale * logits.sigmoid()}
        if self.causal and self.capacity[step] >= 1:  # a step that takes all has nothing to guess
            return Routed(torch.ones_like(logits, dtype=torch.bool), kept, size=x.shape[1])
        if self.causal:
            return Routed(self._predicted(x, logits, step) > 0, kept)
        size = min(x.shape[1], self._size(step, length))
        ranked = logits if real is None else logits.masked_fill(~real, float("-inf"))
        go = torch.zeros_like(logits, dtype=torch.bool)
        go.scatter_(1, ranked.topk(size, dim=1).indices, value=True)
        terms = self._terms(x, logits, go, step) if self.training else ()
        return Routed(go, kept, terms, size=size)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """The count stays on the host, which would otherwise synchronise in every step."""
        super()._apply(fn, recurse)
        if not self.optimizer_steps.is_meta:
            self.optimizer_steps = self.optimizer_steps.cpu()
        return self

    @torch.no_grad()
    def after_step(self) -> None:
        """Count optimizer steps, for the capacity's warm-up."""
        self.optimizer_steps += 1

    def _size(self, step: int, length: int) -> int:
        """Number of a sequence's tokens that a step takes."""
        share = self.capacity[step]
        if self.capacity_warmup and self.training and has_values(self.optimizer_steps):
            done = min(1.0, int(self.optimizer_steps) / self.capacity_warmup)
            share += (1 - share) * 0.5 * (1 + math.cos(math.pi * done))
        return max(1, math.floor(share * length + 1e-9))

    def _predicted(self, x: Tensor, logits: Tensor, step: int) -> Tensor:
        """The logit of being chosen, from the token alone."""
        return self.predictors[step](x) if self.predictors else logits

    def _terms(self, x: Tensor, logits: Tensor, go: Tensor, step: int) -> Aux:
        guess = self._predicted(x.detach(), logits, step)
        target = go.to(guess.dtype)
        right = ((guess > 0) == go).to(guess.dtype).mean()
        terms = [Term("router_agreement", right.detach())]
        if self.aux_loss:
            loss = F.binary_cross_entropy_with_logits(guess, target)
            terms.append(Term("router_aux", loss, self.aux_loss))
        if self.z_loss:
            terms.append(Term("router_z", logits.square().mean(), self.z_loss))
        return tuple(terms)


class Predictor(Component):
    """A small network that predicts from a token whether a step will take it: (..., C) -> (...)."""

    parameter_kinds = {"up.weight": "router", "down.weight": "router"}

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.up = nn.Linear(n_embd, 2 * n_embd)
        self.down = nn.Linear(2 * n_embd, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., C) -> logits (...), in float32 at least."""

        def compute(wide: Tensor) -> Tensor:
            weights: list[Any] = [p.to(wide.dtype) for p in self.parameters()]
            return F.linear(F.gelu(F.linear(wide, *weights[:2])), *weights[2:]).squeeze(-1)

        return precise(compute, x)
