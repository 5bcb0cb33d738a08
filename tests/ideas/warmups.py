"""Batch-size and length warm-up (Brown et al. 2020, 2005.14165; Li et al. 2022, 2108.06084)."""

from strawberry.contracts import Curriculum, RunSite, Settings
from strawberry.plugin import hookimpl


class Warmups(Curriculum):
    """Half of the sequences, and half of their tokens, at first.

    Args:
        steps: how long.
    """

    def __init__(self, site: RunSite, *, steps: int = 2) -> None:
        self.site, self.steps = site, steps

    def at(self, step: int) -> Settings:
        if step >= self.steps:
            return Settings()
        return Settings(
            batch_size=max(1, self.site.batch_size // 2), block_size=self.site.block_size // 2
        )


@hookimpl
def strawberry_register(registry):
    registry.curriculum("warmups", Warmups)


RECIPE = {"curriculum": ["warmups"]}
