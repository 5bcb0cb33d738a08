"""Mixture of depths (Raposo et al. 2024, arXiv 2404.02258, sections 3.3 to 3.5)."""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Loop, Term
from strawberry.plugin import hookimpl


class MixtureOfDepths(Loop):
    """A share of the tokens runs the stack, `x + sigmoid(r) (f(x) - x)`; the others skip it.

    Training takes the tokens with the highest r. Generation takes those for which a second
    network, from the token alone, predicts that it is one of them.

    Args:
        capacity: share of the tokens that run.
        weight: of the loss of that prediction.
    """

    tokens = "some"
    exact = False
    parameter_kinds = {"router": "router", "predictor": "router"}
    waits = "in evaluation the data decide how many tokens run"

    def __init__(self, site, *, capacity: float = 0.5, weight: float = 0.01):
        super().__init__()
        self.capacity, self.weight, self.causal = capacity, weight, False
        for name in ("router", "predictor"):
            self.register_parameter(name, nn.Parameter(torch.randn(site.n_embd) * 0.02))

    def train(self, mode=True):
        self.causal = not mode  # the top of a sequence depends on later tokens
        return super().train(mode)

    def shares(self, steps):
        return (self.capacity,) * steps

    def forward(self, stream, use, inner):
        aux = ()
        for step in range(inner.steps):
            score, x = stream @ self.router, stream.detach()
            guess = x @ self.predictor
            go, size = guess > 0, None
            if self.training:
                size = max(1, int(self.capacity * score.shape[1]))
                go = torch.zeros_like(go).scatter(1, score.topk(size).indices, True)
                loss = F.binary_cross_entropy_with_logits(guess, go.to(guess.dtype))
                aux += (Term("depth_predictor", loss, self.weight),)
            ran, more = inner.some(stream, use, go, step, size=size)
            stream, aux = stream + score.sigmoid()[..., None] * (ran - stream), aux + more
        return stream, aux


@hookimpl
def strawberry_register(registry):
    registry.loop("mixture_of_depths", MixtureOfDepths)
