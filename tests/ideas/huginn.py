"""Recurrent depth (Geiping et al. 2025, Huginn, arXiv 2502.05171, sections 3.1 and 3.3).

Every step reads the embedded input beside the state; training draws the number of steps, and
gradients flow through the last ones alone.
"""

import math
from statistics import NormalDist

import torch

from strawberry.contracts import Loop
from strawberry.plugin import hookimpl


class RandomDepth(Loop):
    """`s_r = R(A [e, s_(r-1)])` for a random number of steps, whose mean is about `recur`.

    Args:
        gradient_steps: steps through which gradients flow, the last ones.
        spread: standard deviation of the logarithm of the rate.
        noise: standard deviation of the state that training begins with; else it begins with 0.
    """

    exact = exact_gradient = False
    waits = "random numbers decide how many steps run"

    def __init__(self, site, *, gradient_steps: int = 8, spread: float = 0.5, noise: float = 0.02):
        super().__init__()
        self.cut, self.spread, self.noise, self.mean = gradient_steps, spread, noise, site.recur
        self.adapter = site.projection("adapter", site.n_embd, 2 * site.n_embd)

    def steps(self, inner):
        if not self.training:
            return inner.steps
        normal = NormalDist().inv_cdf(min(max(inner.draw(), 1e-9), 1 - 1e-9))
        rate = math.exp(math.log(self.mean) - self.spread**2 / 2 + self.spread * normal)
        term, count = math.exp(-rate), 0  # a Poisson number, by its inverse
        left = term - inner.draw()
        while left < 0 and count < 10 * self.mean:
            count += 1
            term *= rate / count
            left += term
        return count + 1

    def forward(self, stream, use, inner):
        steps, aux = self.steps(inner), ()
        state = torch.zeros_like(stream)
        if self.training:
            state = torch.randn_like(stream) * self.noise
        for step in range(steps):
            if step == steps - self.cut:
                state = state.detach()
            state, aux = inner(self.adapter(torch.cat([stream, state], -1), use), use, step)
        return state, aux


@hookimpl
def strawberry_register(registry):
    registry.loop("huginn", RandomDepth)
