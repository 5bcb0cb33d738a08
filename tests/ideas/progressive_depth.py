"""Progressive depth (Gong et al. 2019, ICML 97, algorithm 1, without the copies)."""

from strawberry.contracts import Curriculum, RunSite, Settings
from strawberry.plugin import hookimpl


class Progressive(Curriculum):
    """The lower half of the stack first, then all of it."""

    def __init__(self, site: RunSite) -> None:
        self.depth, self.steps = max(1, site.depth // 2), site.max_iters // 2

    def at(self, step: int) -> Settings:
        return Settings(depth=self.depth if step < self.steps else None)


@hookimpl
def strawberry_register(registry):
    registry.curriculum("progressive", Progressive)


RECIPE = {"curriculum": ["progressive"]}
