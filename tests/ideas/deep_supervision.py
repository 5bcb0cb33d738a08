"""Deep supervision of recursion steps (Jolicoeur-Martineau 2025, TRM, arXiv 2510.04871)."""

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite
from strawberry.plugin import hookimpl


class DeepSupervision(Objective):
    """A loss after each recursion step, between which no gradient flows."""

    def __init__(self, site: ObjectiveSite) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Learned:
        states = batch.states(steps=True, cut=1)
        every = [batch.cross_entropy(batch.normalised(x)) for x in states.steps]
        total = sum(loss.total for loss in every) / len(every)
        return Learned(total, batch.cross_entropy(states.hidden).cross_entropy)


@hookimpl
def strawberry_register(registry):
    registry.objective("supervised", DeepSupervision)


RECIPE = {"objective": "supervised"}
