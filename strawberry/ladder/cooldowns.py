"""Several token counts of a size from one long run: cooldowns that branch from its stable part.

With a warm-up-stable-cooldown schedule a run of fewer tokens equals the long one until its own
cooldown begins (Haegele et al. 2024, arXiv 2405.18392). It is a trial of its own, which starts from
the long run's checkpoint there, and comes to the same bits as if it had been trained from its first
step: so it does where that checkpoint is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strawberry.errors import StrawberryError
from strawberry.training.optimizers import make_schedule

if TYPE_CHECKING:
    from strawberry.ablate.cells import Cell
    from strawberry.ablate.fair import Budget
    from strawberry.ablate.preparing import PreparedPlan
    from strawberry.ladder.sizes import Size
    from strawberry.recipe.spec import Recipe

STABLE = 2
"""Fewest steps at the peak that a short run must share with the long one."""


@dataclass(frozen=True)
class Branch:
    """The cooldowns of a rung's runs at a share of their tokens.

    Attributes:
        share: of the rung's tokens.
        prepared: what an ablation of this length trains.
        sizes: of each architecture, by name.
        shared: steps that the rung's own runs have done for these, by architecture.
    """

    share: float
    prepared: PreparedPlan
    sizes: Mapping[str, Size]
    shared: Mapping[str, int]

    def budget(self, name: str) -> Budget:
        """What an architecture's run of this length costs, its shared steps included."""
        return self.prepared.budgets[name]


def shared_steps(long: Recipe, short: Recipe) -> int:
    """The steps that a short run has in common with a long one: up to the first unequal rate.

    Raises:
        StrawberryError: their schedule has no stable part, or the short run no cooldown.
    """
    one, other = make_schedule(long), make_schedule(short)
    end = short.train.max_iters
    shared = next((step for step in range(end) if one(step) != other(step)), end)
    name = short.schedule.use.removeprefix("strawberry/")
    if shared == end:
        raise StrawberryError(f"cooldowns: the schedule {name!r} doesn't cool down in {end} steps")
    if shared < short.train.warmup_iters + STABLE:
        raise StrawberryError(
            f"cooldowns: a run of {end} steps under the schedule {name!r} shares only {shared} "
            f"with one of {long.train.max_iters}; `wsd` and `trapezoid` have a part that is stable "
            "between train.warmup_iters and the cooldown"
        )
    return shared


def shortened(long: Cell, share: float, evaluations: int, base: Recipe) -> Cell:
    """A cell's run at a share of its steps; its warm-up is the long run's."""
    assert long.recipe is not None
    train = long.recipe.train
    steps = max(1, round(train.max_iters * share))
    changes: dict[str, Any] = {
        "train.max_iters": steps,
        "train.eval_interval": -(-steps // evaluations),
        "train.checkpoint_interval": max(1, steps // 2),
    }
    if train.lr_decay_iters is not None:
        changes["train.lr_decay_iters"] = max(1, round(train.lr_decay_iters * share))
    return long.changed(changes, base)
