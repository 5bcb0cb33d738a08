"""A ladder from its plan to its record, rung by rung; interrupted anywhere, the same call goes on.

Every rung is an ablation in a folder of its own. What is held out is predicted, and the prediction
written, before it is trained.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from strawberry.ablate.preparing import PreparedPlan
from strawberry.ablate.sweep import Sweep, SweepObserver
from strawberry.contracts.execution import Executor
from strawberry.files.atomic import write_atomic
from strawberry.ladder.analysis import analyse, rows_of
from strawberry.ladder.cooldowns import Branch
from strawberry.ladder.plan import LadderPlan
from strawberry.ladder.record import LADDER, LadderRecord
from strawberry.ladder.rungs import Rung, rate_factor, rates
from strawberry.ladder.table import make_runs

Watch: TypeAlias = Callable[[Rung, Branch | None], AbstractContextManager[SweepObserver]]
"""What makes the observer of a rung, or of one of its branches, which is left when that is done."""


class Ladder:
    """Trains the rungs of a plan, into a folder.

    Args:
        plan: the ladder's.
        rungs: made ready.
        executor: what runs the trials.
        out: the folder.
        watch: makes what is told of a rung's trials.
    """

    def __init__(
        self,
        plan: LadderPlan,
        rungs: Sequence[Rung],
        executor: Executor,
        out: Path,
        watch: Watch,
    ) -> None:
        self.plan = plan
        self.rungs = rungs
        self.executor = executor
        self.out = out
        self.watch = watch
        self.tuned: dict[str, dict[str, Any]] = {}
        self.prediction: dict[str, Any] | None = None

    def run(self) -> LadderRecord:
        """Train all rungs, from the smallest; raises what an ablation does."""
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / LADDER).exists():
            self.prediction = LadderRecord.read(self.out).content.get("prediction")
        self._write()
        for rung in self.rungs:
            if rung.number == len(self.rungs) - self.plan.how.hold_out:
                self._predict()
            self._train(rung)
        return self._write()

    def _train(self, rung: Rung) -> None:
        """Train a rung, and the cooldowns that branch from its runs."""
        tunes, out = bool(rung.prepared.plan.tune), self.out / folder_of(rung)
        prepared = rung.prepared if tunes else self._carried(rung, rung.prepared)
        with self.watch(rung, None) as watcher:
            record = Sweep(prepared, self.executor, out, watcher, ledger=self.out).run()
        if tunes:
            self.tuned = {cell["name"]: cell["tuned"] for cell in record.content["cells"]}
        runs = {(t.cell, t.seed): t.folder / "run" for t in record.trials if t.stage == "main"}
        for branch in rung.branches:
            parents = {key: (run, branch.shared[key[0]]) for key, run in runs.items()}
            with self.watch(rung, branch) as watcher:
                Sweep(
                    self._carried(rung, branch.prepared),
                    self.executor,
                    self.out / folder_of(rung, branch),
                    watcher,
                    ledger=self.out,
                    parents=parents,
                ).run()

    def _carried(self, rung: Rung, prepared: PreparedPlan) -> PreparedPlan:
        """A rung's cells with what was tuned, at the rate of their size."""
        if not self.tuned:
            return prepared
        last = self.rungs[min(rung.number, self.plan.how.tuned_rungs - 1)]
        have = self.rungs[0].growth.parameters
        ratio = rate_factor(self.plan.how.rate, rung.growth, have)
        ratio /= rate_factor(self.plan.how.rate, last.growth, have)
        cells = []
        for cell in prepared.cells:
            tuned = dict(self.tuned.get(cell.name) or {})
            if cell.recipe is not None:
                for path in rates(cell.recipe).keys() & tuned.keys():
                    tuned[path] = float(f"{tuned[path] * ratio:.4g}")
            cells.append(cell.changed(tuned, prepared.base) if tuned else cell)
        return replace(prepared, cells=cells)

    def _predict(self) -> None:
        """Note what the rungs below say of those that are held out, unless that was noted."""
        if self.prediction is not None:
            return
        below = LadderRecord.read(self.out).runs(range(len(self.rungs) - self.plan.how.hold_out))
        analysis = analyse(below, check=False)
        held = self.rungs[-self.plan.how.hold_out :]
        rows = [_asked(row) for rung in held for row in rung.all_rows()]
        predicted = rows_of(analysis.predict(make_runs(rows)))
        chances = {}
        for gap in analysis.gaps:
            top = float(np.log(max(row["training_flops"] for row in rows)))
            chances[gap.names[1]] = float(gap.chance(top)[0])
        self.prediction = {
            "written": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "fitted_rungs": len(self.rungs) - len(held),
            "rows": [
                {"rung": rung.number, **row, **known}
                for (rung, row), known in zip(
                    [(rung, _asked(row)) for rung in held for row in rung.all_rows()], predicted,
                    strict=True)
            ],
            "chance_better": chances,
        }  # fmt: skip
        self._write()

    def _write(self) -> LadderRecord:
        """The ladder's own record; those of the rungs are ablations'."""
        content = {
            "plan": self.plan.to_dict(),
            "command": sys.argv,
            "written": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "name": self.rungs[0].prepared.base.name,
            "rungs": [_noted(rung) for rung in self.rungs],
            "prediction": self.prediction,
        }
        write_atomic(self.out / LADDER, json.dumps(content, indent=1, default=str))
        return LadderRecord.read(self.out)


def folder_of(rung: Rung, branch: Branch | None = None) -> str:
    """The name of the folder of a rung, or of one of its branches."""
    name = f"rung-{rung.number + 1}"
    return name if branch is None else f"{name}-cooldown-{branch.share:g}"


def _noted(rung: Rung) -> dict[str, Any]:
    """A rung and its branches in the ladder's record."""
    branches = [
        {"folder": folder_of(rung, each), "sizes": rung.branch_rows(each)} for each in rung.branches
    ]
    return {"folder": folder_of(rung), "sizes": rung.rows(), "branches": branches}


def _asked(row: Mapping[str, Any]) -> dict[str, Any]:
    """A size as a row of a table."""
    return {
        "architecture": row["architecture"],
        "parameters": row["without_embeddings"],
        "tokens": row["tokens"],
        "training_flops": row["training_flops"],
        "once": row["once"],
        "recurred": row["recurred"],
        "steps": row["steps"],
    }
