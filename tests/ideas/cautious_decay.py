"""Cautious weight decay (Chen et al. 2025, arXiv 2510.12402, algorithm 1), on SGD with momentum."""

import torch

from strawberry.contracts import OptimizerSite, OptimizerSource
from strawberry.plugin import hookimpl


class Cautious(torch.optim.SGD):
    """Decays a weight only where its update makes it smaller too."""

    @torch.no_grad()
    def step(self, closure=None):
        before = {p: p.clone() for group in self.param_groups for p in group["params"]}
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                agrees = (before[p] - p) * before[p] >= 0
                p.sub_(agrees * before[p], alpha=group["lr"] * group["decay"])


class CautiousSource(OptimizerSource):
    """SGD with momentum and cautious weight decay.

    Args:
        decay: of weights.
    """

    shards = True

    def __init__(self, site: OptimizerSite, *, decay: float = 0.1) -> None:
        self.decay = decay

    def make(self, infos, *, lr, device):
        groups = [{"params": [i.parameter for i in infos], "decay": self.decay}]
        return Cautious(groups, lr=lr, momentum=0.9)


@hookimpl
def strawberry_register(registry):
    registry.optimizer("cautious", CautiousSource)


RECIPE = {"optimizer": "cautious"}
