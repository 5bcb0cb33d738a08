"""NorMuon (Li et al. 2025, arXiv 2510.05491, algorithm 1): Muon with a second moment by neuron."""

import torch

from strawberry.contracts import OptimizerSite, OptimizerSource
from strawberry.plugin import hookimpl


def orthogonal(m, steps=5):  # (r, c), by Newton and Schulz
    x = m / (m.norm() + 1e-7)
    x = x.mT if m.shape[0] > m.shape[1] else x
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if m.shape[0] > m.shape[1] else x


class Normalised(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            lr, (beta, second), decay = group["lr"], group["betas"], group["decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                m = state.setdefault("m", torch.zeros_like(p))
                v = state.setdefault("v", p.new_zeros(len(p), 1))
                o = orthogonal(m.lerp_(p.grad, 1 - beta))
                v.lerp_(o.square().mean(1, keepdim=True), 1 - second)
                o = o / (v.sqrt() + 1e-8)
                rate = 0.2 * lr * o.numel() ** 0.5 / o.norm()  # the size of Adam's updates
                p.mul_(1 - lr * decay).sub_(rate * o)


class NorMuon(OptimizerSource):
    """For matrices, each by itself.

    Args:
        decay: of weights.
    """

    unit = "matrix"

    def __init__(self, site: OptimizerSite, *, decay: float = 0.1) -> None:
        super().__init__(site)
        self.decay = decay

    def make(self, infos, *, lr, device):
        values = {"lr": lr, "betas": (0.95, 0.95), "decay": self.decay}
        return Normalised([info.parameter for info in infos], values)


@hookimpl
def strawberry_register(registry):
    registry.optimizer("normuon", NorMuon)


RECIPE = {"optimizer": [{"use": "normuon", "params": "matrix"}, "adamw"]}
