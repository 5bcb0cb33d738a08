"""A stack that grows from below (Gong et al. 2019, ICML; Zhang and He 2020, arXiv 2010.13369)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from strawberry.components.curriculum.stages import stage
from strawberry.contracts import Curriculum, RunSite, Settings
from strawberry.errors import FieldError


class GrowingDepth(Curriculum):
    """The first `start` nodes of the stack run at first, later more; the others are as drawn.

    Args:
        start: nodes that run from the beginning; each `repeat` is written out.
        steps: after so many all run; null takes half of the run.
    """

    def __init__(
        self,
        site: RunSite,
        *,
        start: Annotated[int, Ge(1)] = 1,
        steps: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        if start >= site.depth:
            raise FieldError("start", f"the stack has {site.depth} nodes: it can't grow from there")
        self.start, self.depth = start, site.depth
        self.steps = steps if steps is not None else site.max_iters // 2 + 1

    def at(self, step: int) -> Settings:
        """As many nodes as its stage has."""
        if step >= self.steps:
            return Settings()
        return Settings(depth=self.start + stage(step, self.steps, self.depth - self.start))
