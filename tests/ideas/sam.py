"""Sharpness-aware minimisation (Foret et al. 2020, arXiv 2010.01412, algorithm 1)."""

from typing import Annotated

import torch
from annotated_types import Gt

from strawberry.contracts import OptimizerSite, OptimizerSource
from strawberry.plugin import hookimpl


class Sam(OptimizerSource):
    """AdamW by the gradient of the weights `w + rho g / |g|`, where g is the gradient of w.

    Args:
        rho: length of the move.
    """

    passes = 2

    def __init__(self, site: OptimizerSite, *, rho: Annotated[float, Gt(0)] = 0.05) -> None:
        super().__init__(site)
        self.rho, self.kept = rho, {}

    def make(self, infos, *, lr, device):
        return torch.optim.AdamW([info.parameter for info in infos], lr=lr)

    @torch.no_grad()
    def after_pass(self, optimizer, number):
        moved = [p for group in optimizer.param_groups for p in group["params"]]
        if number == 0:
            self.kept = {p: p.clone() for p in moved if p.grad is not None}
            norm = torch.stack([p.grad.norm() for p in self.kept]).norm() + 1e-12
            for p in self.kept:
                p.add_(self.rho / norm * p.grad)
        if number == self.passes - 1:
            for p, before in self.kept.items():
                p.copy_(before)
            self.kept = {}


@hookimpl
def strawberry_register(registry):
    registry.optimizer("sam", Sam)


RECIPE = {"optimizer": "sam"}
