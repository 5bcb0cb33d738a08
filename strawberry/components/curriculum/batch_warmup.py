"""Small batches first (Brown et al. 2020, GPT-3, arXiv 2005.14165, appendix B)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from strawberry.components.curriculum.stages import in_stages
from strawberry.contracts import Curriculum, RunSite, Settings
from strawberry.errors import FieldError


class BatchWarmup(Curriculum):
    """`batch_size` grows from `start` to the recipe's, by equal ratios.

    Args:
        start: sequences of the first steps.
        steps: after so many it is the recipe's; null takes a tenth of the run.
        stages: how many sizes there are, the last one among them.
        multiple: sizes are multiples of it, such as the number of ranks.
    """

    def __init__(
        self,
        site: RunSite,
        *,
        start: Annotated[int, Ge(1)] = 1,
        steps: Annotated[int, Ge(1)] | None = None,
        stages: Annotated[int, Ge(2)] = 4,
        multiple: Annotated[int, Ge(1)] = 1,
    ) -> None:
        if not start <= site.batch_size:
            raise FieldError("start", f"{start} is more than batch_size {site.batch_size}")
        if site.batch_size % multiple:
            raise FieldError("multiple", f"batch_size {site.batch_size} is none of {multiple}")
        self.first, self.last, self.stages, self.multiple = start, site.batch_size, stages, multiple
        self.steps = steps if steps is not None else site.max_iters // 10 + 1

    def at(self, step: int) -> Settings:
        """The size of its stage."""
        size = in_stages(
            self.first, self.last, step, self.steps, stages=self.stages, multiple=self.multiple
        )
        return Settings(batch_size=size)
