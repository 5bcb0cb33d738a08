"""Multi-token prediction (Gloeckle et al. 2024, arXiv 2404.19737, section 2)."""

from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite
from strawberry.plugin import hookimpl


class MultiToken(Objective):
    """The sum of the losses of the next tokens, each of which has a block of its own.

    Args:
        tokens: how many tokens ahead.
    """

    def __init__(self, site: ObjectiveSite, *, tokens: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(site.own_block() for _ in range(tokens - 1))

    def forward(self, batch: Batch) -> Learned:
        states = batch.states(blocks=True)
        first = batch.cross_entropy(states.hidden)
        total, terms = first.total, ()
        for ahead, block in enumerate(self.blocks, 1):
            x, more = block(states.blocks[-2], batch.use())
            targets = F.pad(batch.targets[:, ahead:], (0, ahead), value=-1)
            total = total + batch.cross_entropy(batch.normalised(x), targets).total
            terms += more
        return Learned(total, first.cross_entropy, terms=terms)


@hookimpl
def strawberry_register(registry):
    registry.objective("ahead", MultiToken)


RECIPE = {"objective": {"use": "ahead", "tokens": 3}}
