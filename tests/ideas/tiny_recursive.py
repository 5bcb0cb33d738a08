"""Several updates a batch with a state that is carried on (TRM, Jolicoeur-Martineau 2025).

arXiv 2510.04871, section 2.4: deep supervision. Each update goes on from the state that the last
one left, without its gradient.
"""

import torch

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite, OptimizerSource
from strawberry.plugin import hookimpl


class Carried(Objective):
    """The next token, of the embeddings and the state that the last pass left."""

    def __init__(self, site: ObjectiveSite) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Learned:
        x = batch.embed(batch.ids)
        if "state" in batch.carried:
            x = x + batch.carried["state"]
        hidden = batch.states(embedded=x).hidden
        batch.carried["state"] = hidden.detach()
        loss = batch.cross_entropy(hidden)
        return Learned(loss.total, loss.cross_entropy)


class Several(OptimizerSource):
    """AdamW, several times in a step.

    Args:
        updates: of the weights by one batch.
    """

    def __init__(self, site, *, updates: int = 3) -> None:
        super().__init__(site)
        self.passes = updates

    def make(self, infos, *, lr, device):
        return torch.optim.AdamW([info.parameter for info in infos], lr=lr)

    def after_pass(self, optimizer, number):
        if number < self.passes - 1:  # the step itself is the last update
            optimizer.step()


@hookimpl
def strawberry_register(registry):
    registry.objective("carried", Carried)
    registry.optimizer("several", Several)


RECIPE = {"objective": "carried", "optimizer": "several"}
