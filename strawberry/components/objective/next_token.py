"""Cross-entropy of the next token."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite


class NextToken(Objective):
    """The cross-entropy of each token, given those before it.

    Args:
        z_loss: weight of the mean squared logsumexp of the logits in the training loss, which keeps
            them from drifting (Chowdhery et al. 2022, arXiv 2204.02311, section 5).
        label_smoothing: share of a target's probability that the training loss spreads evenly over
            the vocabulary (Szegedy et al. 2015, arXiv 1512.00567, section 7).
    """

    def __init__(
        self,
        site: ObjectiveSite,
        *,
        z_loss: Annotated[float, Ge(0)] = 0.0,
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        super().__init__()
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch) -> Learned:
        """The loss, and `logit_z` where it is weighed."""
        hidden = batch.states().hidden
        if not batch.training:
            plain = batch.cross_entropy(hidden)
            return Learned(plain.total, plain.cross_entropy)
        loss = batch.cross_entropy(hidden, z_loss=self.z_loss, label_smoothing=self.label_smoothing)
        return Learned(loss.total, loss.cross_entropy, {"logit_z": loss.z} if self.z_loss else {})
