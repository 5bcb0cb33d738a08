"""A random number of steps in training, of which the last ones learn.

Geiping et al. 2025 (Huginn), arXiv 2502.05171, sections 3.1 and 3.3.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Aux, Inner, Loop, LoopSite, Stream, Use

_MOST = 8
"""Cap on the drawn steps, as a multiple of `recur`: a bound on a pass's time."""


class RandomDepth(Loop):
    """Each step reads the input beside the state: `s_r = f(A [e, s_(r-1)])`, e the input.

    Training draws the number of steps: 1 more than a Poisson number, whose rate is log-normal with
    mean `recur`. Evaluation runs `recur` steps, or as many as it is asked for.

    Args:
        gradient_steps: steps through which gradients flow, the last ones of a pass.
        spread: standard deviation of the logarithm of the rate.
        noise: standard deviation of the state that a pass of training begins with. Evaluation
            begins with zeros.
    """

    exact = False
    exact_gradient = False
    waits = "random numbers decide how many steps run"

    def __init__(
        self,
        site: LoopSite,
        *,
        gradient_steps: Annotated[int, Ge(1)] = 8,
        spread: Annotated[float, Gt(0)] = 0.5,
        noise: Annotated[float, Ge(0)] = 0.02,
    ) -> None:
        super().__init__()
        self.gradient_steps, self.spread, self.noise = gradient_steps, spread, noise
        self.recur = site.recur
        self.adapter = site.projection("adapter", site.n_embd, 2 * site.n_embd)

    def forward(self, stream: Stream, use: Use, inner: Inner) -> tuple[Stream, Aux]:
        """The state (B, T, C) after the last step, and the terms of that step."""
        steps = self._drawn(inner) if self.training else inner.steps
        state = torch.zeros_like(stream)
        if self.training and self.noise:
            state = torch.randn_like(stream) * self.noise
        aux: Aux = ()
        for step in range(steps):
            if step == steps - self.gradient_steps:
                state = state.detach()
            both = torch.cat([stream, state], dim=-1)
            state, aux = inner(self.adapter(both, use), use, step)
        return state, aux

    def _drawn(self, inner: Inner) -> int:
        normal = NormalDist().inv_cdf(min(max(inner.draw(), 1e-9), 1 - 1e-9))
        rate = self.recur * math.exp(self.spread * normal - self.spread**2 / 2)
        return 1 + poisson_quantile(rate, inner.draw(), _MOST * self.recur)


def poisson_quantile(rate: float, probability: float, most: int) -> int:
    """The quantile of a Poisson distribution at `probability`, at most `most`."""
    log_share, number = -rate, 0  # of this number; its logarithm, since exp(-rate) may be 0
    below = math.exp(log_share)
    while below <= probability and number < most:
        number += 1
        log_share += math.log(rate / number)
        below += math.exp(log_share)
    return number
