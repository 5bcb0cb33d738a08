"""Short sequences first (Li et al. 2022, arXiv 2108.06084, section 4.1)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from strawberry.components.curriculum.stages import in_stages
from strawberry.contracts import Curriculum, RunSite, Settings
from strawberry.errors import FieldError


class LengthWarmup(Curriculum):
    """Sequences are cut off after `start` tokens at first, and later less, by equal ratios.

    Args:
        start: tokens of a sequence in the first steps.
        steps: after so many they are whole; null takes a tenth of the run.
        stages: how many lengths there are, the last one among them.
        multiple: lengths are multiples of it.
    """

    def __init__(
        self,
        site: RunSite,
        *,
        start: Annotated[int, Ge(1)] = 8,
        steps: Annotated[int, Ge(1)] | None = None,
        stages: Annotated[int, Ge(2)] = 4,
        multiple: Annotated[int, Ge(1)] = 8,
    ) -> None:
        if not start <= site.block_size:
            raise FieldError("start", f"{start} is more than block_size {site.block_size}")
        self.first, self.last, self.stages, self.multiple = start, site.block_size, stages, multiple
        self.steps = steps if steps is not None else site.max_iters // 10 + 1

    def at(self, step: int) -> Settings:
        """The length of its stage."""
        length = in_stages(
            self.first, self.last, step, self.steps, stages=self.stages, multiple=self.multiple
        )
        return Settings(block_size=length)
