"""Distillation from a run (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

import torch
from torch.nn import functional as F

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite
from strawberry.plugin import hookimpl


class Distillation(Objective):
    """The divergence from the distribution of another run's model.

    Args:
        run: its folder.
    """

    def __init__(self, site: ObjectiveSite, *, run: str) -> None:
        super().__init__()
        self.teacher = site.teacher(run)

    def forward(self, batch: Batch) -> Learned:
        hidden = batch.states().hidden
        plain = batch.cross_entropy(hidden)
        if not batch.training:
            return Learned(plain.total, plain.cross_entropy)
        taught = self.teacher.hidden(batch.ids)
        return Learned(batch.over_logits(hidden, self.each, taught), plain.cross_entropy)

    def each(self, logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        p = self.teacher.logits(taught).to(logits.dtype).log_softmax(-1)
        q = logits.log_softmax(-1)
        return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


@hookimpl
def strawberry_register(registry):
    registry.objective("taught", Distillation)


RECIPE = {"objective": {"use": "taught", "run": "teacher"}}
