"""Early exits (Elhoushi et al. 2024, LayerSkip, arXiv 2404.16710, section 4.1.2)."""

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite
from strawberry.plugin import hookimpl


class EarlyExit(Objective):
    """Each block's state predicts the next token; later blocks count more.

    Args:
        scale: how much early exits count.
    """

    def __init__(self, site: ObjectiveSite, *, scale: float = 0.2) -> None:
        super().__init__()
        last = site.n_blocks - 1
        sums = [layer * (layer + 1) / 2 for layer in range(last)]
        self.weights = [*(scale * each for each in sums), last + scale * sums[-1]]

    def forward(self, batch: Batch) -> Learned:
        states = batch.states(blocks=True)
        losses = [batch.cross_entropy(batch.normalised(x)) for x in states.blocks]
        weighed = [w * loss.total for w, loss in zip(self.weights, losses, strict=True)]
        return Learned(sum(weighed) / sum(self.weights), losses[-1].cross_entropy)


@hookimpl
def strawberry_register(registry):
    registry.objective("exits", EarlyExit)


RECIPE = {"objective": "exits"}
