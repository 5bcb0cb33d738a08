"""Expert choice that is causal in training too: each step has a threshold, updated between steps.

A token runs step r if its score exceeds that step's threshold. The threshold follows the scores of
past optimizer steps, so that the intended share of tokens exceeds it; the number of tokens of one
sequence is free. Training and generation choose alike. The idea is Mixture-of-Recursions' expert
choice (arXiv 2507.10524) with a running quantile instead of top-k.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt, MinLen
from torch import Tensor

from strawberry.components.router.scores import ScoringRouter
from strawberry.contracts import Aux, Routed, RouterSite, State, Term, all_gather, has_values


class ThresholdRouter(ScoringRouter):
    """Tokens whose score exceeds a running quantile continue.

    `y = x + a sigmoid(l) f(x)` if the score `l = theta_r x^T` exceeds step r's threshold; else
    y is x.

    Args:
        capacity: fraction of tokens for each step, falling; null takes 1, (R-1)/R ... 1/R. A
            fraction of 1 takes all.
        scale: factor on the gates.
        momentum: fraction of the old threshold that is kept at each optimizer step.
        z_loss: weight of the mean squared logit; a token that a step doesn't score counts as 0.
    """

    precise_buffers = ("thresholds", "sums", "seen")

    thresholds: Tensor
    sums: Tensor
    seen: Tensor

    def __init__(
        self,
        site: RouterSite,
        *,
        capacity: Annotated[list[Annotated[float, Gt(0), Le(1)]], MinLen(1)] | None = None,
        scale: Annotated[float, Gt(0)] = 0.1,
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.9,
        z_loss: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__(site, capacity, scale)
        self.momentum = momentum
        self.z_loss = z_loss
        self.register_buffer("thresholds", torch.zeros(site.steps))
        # Since the last optimizer step; 0 whenever a checkpoint is written.
        self.register_buffer("sums", torch.zeros(site.steps), persistent=False)
        self.register_buffer("seen", torch.zeros(site.steps), persistent=False)

    def route(
        self, x: Tensor, step: int, carried: State, length: int, real: Tensor | None
    ) -> Routed:
        """Those of the tokens (B, K, C) above the threshold of this step."""
        logits = self.logits(x, step)
        kept = {"gate": self.scale * logits.sigmoid()}
        terms: Aux = ()
        if self.training and self.z_loss:
            squares = logits.square() if real is None else logits.square() * real
            terms = (Term("router_z", squares.sum() / (len(x) * length), self.z_loss),)
        if self.capacity[step] >= 1:
            return Routed(torch.ones_like(logits, dtype=torch.bool), kept, terms, x.shape[1])
        if self.training and has_values(logits):
            self._note(logits, real, step, length)
        return Routed(logits > self.thresholds[step], kept, terms)

    @torch.no_grad()
    def _note(self, logits: Tensor, real: Tensor | None, step: int, length: int) -> None:
        """Record the quantile above which the intended share of the whole batch's tokens lies."""
        if real is not None:
            logits = logits.masked_fill(~real, float("nan"))
        every = all_gather(logits.detach()).float()
        tokens = length * len(every)
        left = every.isnan().logical_not().sum()  # on the device: the host waits for none of it
        wanted = (self.capacity[step] * tokens / left.clamp(min=1)).clamp(max=1)
        quantile = every.flatten().nanquantile(1 - wanted)
        self.sums[step] += torch.where(left > 0, quantile, 0.0)
        self.seen[step] += 1

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the thresholds towards the recorded quantiles."""
        mean = self.sums / self.seen.clamp(min=1)
        moved = self.momentum * self.thresholds + (1 - self.momentum) * mean
        self.thresholds.copy_(torch.where(self.seen > 0, moved, self.thresholds))
        self.sums.zero_()
        self.seen.zero_()
