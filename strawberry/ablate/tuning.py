"""The values to tune: the same number of trials for every cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from strawberry.ablate.extra import needs

if TYPE_CHECKING:
    from strawberry.ablate.plan import Plan

ROUND = 3
"""Number of trials proposed before results are known; fixed, so a resumed sweep proposes the same
values."""


class Tuning:
    """Proposes values for each cell and receives results: a full grid, or Optuna's proposals."""

    def __init__(self, plan: Plan, cells: Sequence[str]) -> None:
        from strawberry.ablate.plan import Range

        self.plan = plan
        self.cells = list(cells)
        self.results: dict[str, list[tuple[dict[str, Any], float]]] = {name: [] for name in cells}
        self.ranges = {p: v for p, v in plan.tune.items() if isinstance(v, Range)}
        self.lists = {p: v for p, v in plan.tune.items() if not isinstance(v, Range)}
        self.asked = 0
        self.studies: dict[str, Any] = {}
        self.open: dict[str, list[Any]] = {}
        if self.ranges:
            optuna = needs("optuna")
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            for name in cells:
                sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=ROUND)
                self.studies[name] = optuna.create_study(sampler=sampler)

    def ask(self) -> list[tuple[str, dict[str, Any]]] | None:
        """The next values for every cell; None when all trials are done."""
        if not self.ranges:
            if self.asked:
                return None
            self.asked = 1
            rows = list(itertools.product(*self.lists.values()))
            named = [dict(zip(self.lists, row, strict=True)) for row in rows]
            return [(cell, values) for cell in self.cells for values in named]
        left = self.plan.tune_trials - self.asked
        if left <= 0:
            return None
        count = min(ROUND, left)
        self.asked += count
        self.open = {name: [self.studies[name].ask() for _ in range(count)] for name in self.cells}
        return [(n, self._values(trial)) for n in self.cells for trial in self.open[n]]

    def _values(self, trial: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for path, wanted in self.ranges.items():
            if wanted.whole:
                values[path] = trial.suggest_int(path, wanted.low, wanted.high, log=wanted.log)
            else:
                value = trial.suggest_float(path, wanted.low, wanted.high, log=wanted.log)
                values[path] = float(f"{value:.4g}")
        for path, given in self.lists.items():
            index = trial.suggest_int(path, 0, len(given) - 1)
            values[path] = given[index]
        return values

    def tell(self, told: Sequence[tuple[str, dict[str, Any], Mapping[int, float]]]) -> None:
        """Record the metric by seed, in the order of the proposals."""
        from strawberry.ablate.statistics import higher_is_better

        sign = -1.0 if higher_is_better(self.plan.metric) else 1.0
        waiting = {name: list(trials) for name, trials in self.open.items()}
        for cell, values, scores in told:
            whole = len(scores) == self.plan.tune_seeds  # a setting that diverges once is no choice
            score = sign * float(np.mean(list(scores.values()))) if whole else None
            if score is not None:
                self.results[cell].append((values, score))
            if cell in self.studies:
                trial = waiting[cell].pop(0)
                if score is None:
                    fail = needs("optuna").trial.TrialState.FAIL
                    self.studies[cell].tell(trial, state=fail)
                else:
                    self.studies[cell].tell(trial, score)

    def best(self, cell: str) -> dict[str, Any] | None:
        """The values with the lowest loss; None if nothing finished."""
        results = self.results[cell]
        return min(results, key=lambda item: item[1])[0] if results else None

    def warnings(self, cell: str) -> list[str]:
        """Paths whose values all gave one result to the last bit, the other paths being equal.

        The cell's recipe reads such a path nowhere, or something else takes precedence over it.
        """
        return [
            f"tuning {path} had no effect: every value gave the same {self.plan.metric}"
            for path in self.plan.tune
            if self._is_without_effect(cell, path)
        ]

    def _is_without_effect(self, cell: str, path: str) -> bool:
        groups: dict[str, dict[str, float]] = {}
        for values, score in self.results[cell]:
            others = {p: v for p, v in values.items() if p != path}
            groups.setdefault(repr(others), {})[repr(values[path])] = score
        compared = [set(group.values()) for group in groups.values() if len(group) > 1]
        return bool(compared) and all(len(scores) == 1 for scores in compared)


def trials_a_cell(plan: Plan) -> int:
    """Number of tuning trials for each cell."""
    from strawberry.ablate.plan import Range

    if not plan.tune:
        return 0
    if any(isinstance(values, Range) for values in plan.tune.values()):
        return plan.tune_trials * plan.tune_seeds
    sizes = [len(values) for values in plan.tune.values() if not isinstance(values, Range)]
    return plan.tune_seeds * math.prod(sizes)
