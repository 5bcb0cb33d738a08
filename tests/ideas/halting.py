"""Halting (Graves 2016, ACT, arXiv 1603.08983, eq. 5 to 12; by token as in 1807.03819).

A token that has halted keeps its state, and runs no further step.
"""

import torch
from torch import nn

from strawberry.contracts import Loop, Term
from strawberry.plugin import hookimpl


class Halting(Loop):
    """The mean of a token's states, weighted by its probabilities of halting.

    Args:
        ponder: weight of the loss of the number of steps and the remainder.
        rest: a token halts where its probabilities sum to 1 - rest.
    """

    tokens = "some"
    exact = False
    parameter_kinds = {"weight": "router", "bias": "router"}
    waits = "the data decide how many tokens run a step"

    def __init__(self, site, *, ponder: float = 0.01, rest: float = 0.01):
        super().__init__()
        self.ponder, self.rest = ponder, rest
        self.weight, self.bias = nn.Parameter(torch.zeros(site.n_embd)), nn.Parameter(torch.ones(1))

    def forward(self, x, use, inner):
        going = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        total = x.new_zeros(x.shape[:2])  # probability so far
        mean, cost, aux = torch.zeros_like(x), torch.zeros_like(total), ()
        for step in range(inner.steps):
            x, more = inner.some(x, use, going, step)
            p = (x @ self.weight + self.bias).sigmoid()
            last = (total + p > 1 - self.rest) | (step == inner.steps - 1)
            p = torch.where(going, torch.where(last, 1 - total, p), 0)
            mean, total = mean + p[..., None] * x, total + p
            cost, aux = cost + going + torch.where(last & going, p, 0), aux + more
            going = going & ~last
        return mean, (*aux, Term("ponder", cost.mean(), self.ponder))


@hookimpl
def strawberry_register(registry):
    registry.loop("halting", Halting)
