"""Learning from another run's model (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite


class Distillation(Objective):
    """`(1 - weight) CE + weight t^2 KL(teacher || student)`, both at temperature t in the KL.

    Args:
        run: folder of the run whose newest checkpoint teaches; from the recipe's folder where there
            is none of that name here. It must have the same vocabulary.
        weight: of what the teacher says.
        temperature: what logits are divided by where they are compared.
    """

    def __init__(
        self,
        site: ObjectiveSite,
        *,
        run: str,
        weight: Annotated[float, Ge(0), Le(1)] = 0.5,
        temperature: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__()
        self.teacher = site.teacher(run)
        self.weight, self.temperature = weight, temperature

    def forward(self, batch: Batch) -> Learned:
        """The mean of both; the divergence is logged as `divergence`."""
        hidden = batch.states().hidden
        plain = batch.cross_entropy(hidden)
        if not batch.training:
            return Learned(plain.total, plain.cross_entropy)
        taught = batch.over_logits(hidden, self._divergence, self.teacher.hidden(batch.ids))
        total = (1 - self.weight) * plain.total + self.weight * self.temperature**2 * taught
        return Learned(total, plain.cross_entropy, {"divergence": taught})

    def _divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """KL(teacher || student) of each of (N, V) logits, given the teacher's states: (N,)."""
        teacher = (self.teacher.logits(taught).to(logits.dtype) / self.temperature).log_softmax(-1)
        student = (logits / self.temperature).log_softmax(-1)
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
