"""Run an ablation from its plan to its record; the same call resumes after an interruption."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import platform
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

import strawberry
from strawberry.ablate.asking import Asking
from strawberry.ablate.campaign import prior_of
from strawberry.ablate.cells import Cell
from strawberry.ablate.forecast import Forecast, Wanted, forecast, planned
from strawberry.ablate.known import Noise, finished, own_trials, read_noise
from strawberry.ablate.plan import Plan, named_by
from strawberry.ablate.preparing import RUNGS, PreparedPlan, shortened
from strawberry.ablate.record import RECORD, Record, values_of
from strawberry.ablate.seeds import held
from strawberry.ablate.statistics import LEAST, compare, higher_is_better, undecided
from strawberry.ablate.trials import Trial, Trials, undone
from strawberry.ablate.tuning import Tuning
from strawberry.ablate.waiting import LockedFolder
from strawberry.contracts.execution import STOPPED, Events, Executor, ExecutorSite, FinishedJob
from strawberry.errors import Location, RecipeError, StrawberryError
from strawberry.plugin import Plugins
from strawberry.recipe.components import ComponentReader
from strawberry.recipe.tree import in_order, located
from strawberry.runs.folder import device_name
from strawberry.stopping import heeded, stopped_by

TUNING_SEEDS = 1000
"""Offset between the seeds for tuning and those for the comparison."""


class SweepStopped(StrawberryError):  # noqa: N818 (not a mistake: the user asked for it)
    """A signal stopped an ablation; its trials are saved."""

    def __init__(self, folder: Path, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(f"stopped; trials are saved in {folder}; run the same command to continue")


class SweepObserver(Events):
    """Receives progress events; the base class ignores them."""

    def stage(self, name: str, trials: Sequence[Trial], done: int) -> None:
        """A round of trials begins; some may be done already."""

    def end(self, ended: FinishedJob) -> None:
        """A trial ended."""

    def forecast(self, forecast: Forecast | None) -> None:
        """Receives what the seeds can detect; None until two seeds are finished."""


def default_folder(plan: Plan) -> Path:
    """`ablations/NAME-HASH`: the same plan has the same folder."""
    return Path("ablations") / named_by(plan.recipe, plan.to_dict())


class Sweep:
    """Runs a prepared plan in a folder.

    Args:
        prepared: the plan's cells.
        executor: runs the trials.
        out: the folder.
        watcher: receives progress events.
        noise: noise of an earlier sweep, for forecasts before this one's first trials finish.
        wanted: difference to detect; None takes the one that matters.
        ledger: folder of the ledger that counts the question; None takes the parent of `out`.
        parents: the run, by cell and seed, from whose checkpoint after a step a trial starts. Its
            result must not depend on that.
    """

    def __init__(
        self,
        prepared: PreparedPlan,
        executor: Executor,
        out: Path,
        watcher: SweepObserver,
        *,
        noise: Noise | None = None,
        wanted: Wanted | None = None,
        ledger: Path | None = None,
        parents: Mapping[tuple[str, int], tuple[Path, int]] = MappingProxyType({}),
    ) -> None:
        self.prepared = prepared
        self.plan = prepared.plan
        self.executor = executor
        self.out = out
        self.watcher = watcher
        self.folder = LockedFolder(out, watcher.say)
        self.trials = Trials(out, watcher.say)
        self.all: list[Trial] = []
        self.tuned: dict[str, dict[str, Any]] = {}
        self.pruned: dict[str, str] = {}
        self.stages: dict[str, int] = {}
        self.noise = noise
        self.wanted = wanted
        self.parents = parents
        self.pilot: set[str] = set()
        self.asking = Asking(prepared, out, ledger)

    def run(self) -> Record:
        """Tune, halve, train every cell with every seed, and write the record.

        Raises:
            SweepStopped: a signal stopped it; finished trials remain.
            StrawberryError: the folder is in use, or missing for too long, or nothing can run.
        """
        with self.folder.held(), self._stoppable(), contextlib.closing(self.executor):
            self.asking.ask()
            forecast = self.forecast()
            self.watcher.forecast(forecast)
            self._tune()
            if self.plan.halving:
                self._halve()
            self._main(pilot=forecast is None)
            main = [trial for trial in self.all if trial.stage == "main"]
            self.asking.learn({c.name: self._values(main, c.name) for c in self._left()})
            return self._write()

    def forecast(self) -> Forecast | None:
        """Forecast of what the seeds can detect; None while no noise is known.

        The noise of this sweep's own finished trials takes precedence over an earlier one's.
        """
        known = own_trials(self.out, self._key)
        source = f"finished trials in {self.out}"
        noise = (known and read_noise(known, self.plan.to_dict(), source)) or self.noise
        if noise is None:
            return None
        cells = [cell for cell in planned(self.prepared) if cell["name"] not in self.pruned]
        plan = {**self.plan.to_dict(), "alpha": self.asking.alpha}
        return forecast(plan, cells, noise, slots=self.executor.slots,
                        done=finished(known), wanted=self.wanted)  # fmt: skip

    def _key(self, recorded: Mapping[str, Any], seed: int) -> str | None:
        """The key of a recorded cell's trial; None if the plan no longer has it."""
        for cell in self.prepared.live:
            if cell.name == recorded["name"]:
                return self._trial(cell, seed, values=recorded["tuned"]).key
        return None

    # The stages

    def _tune(self) -> None:
        """Tune every cell with the same number of trials; the best on validation is taken."""
        if not self.plan.tune:
            return
        by_name = {cell.name: cell for cell in self.prepared.live}
        tuning = Tuning(self.plan, list(by_name))
        while (asked := tuning.ask()) is not None:
            trials = [
                self._trial(by_name[cell], seed, stage="tune", values=values)
                for cell, values in asked
                for seed in self._seeds(self.plan.tune_seeds, TUNING_SEEDS)
            ]
            self._run("tuning", trials)
            tuning.tell([
                (cell, values, self._values(trials, cell, _label(values)))
                for cell, values in asked
            ])  # fmt: skip
        for cell in self.prepared.live:
            best = tuning.best(cell.name)
            if best is None:
                self.pruned[cell.name] = "no tuning trial finished"
            else:
                self.tuned[cell.name] = best
                self.prepared.warn(cell.name, tuning.warnings(cell.name))

    def _halve(self) -> None:
        """Run short trials, after which the worse half of the cells stops; the baseline stays."""
        for rung in RUNGS:
            left = self._left()
            if len(left) < 4:
                return
            trials = []
            for cell in left:
                assert cell.recipe is not None
                steps = shortened(cell.recipe.train.max_iters, rung)
                values = {"train.max_iters": steps}
                trials.append(self._trial(cell, self.prepared.base.seed, stage="halving",
                                        values=values, label=f"{steps} steps"))  # fmt: skip
            self._run(f"halving at {rung:.0%}", trials)
            scores = {
                trial.cell: next(iter(self._values([trial]).values()), None) for trial in trials
            }
            sign = -1 if higher_is_better(self.plan.metric) else 1
            others = [cell.name for cell in left[1:]]
            ranked = sorted(
                others,
                key=lambda n: (scores[n] is None, 0.0 if scores[n] is None else sign * scores[n]),  # type: ignore[operator]
            )
            for name in ranked[(len(left) + 1) // 2 - 1 :]:
                score = scores[name]
                text = "failed" if score is None else f"{self.plan.metric} {score:.4f}"
                self.pruned[name] = f"{text} after {rung:.0%} of the steps"

    def _main(self, *, pilot: bool) -> None:
        """Train every cell with every seed; with `seeds: auto`, add seeds until all is decided.

        With `pilot`, the forecast is reported after the first two seeds.
        """
        count = self.plan.seeds or 3
        if pilot and count > LEAST:
            first = [self._trial(cell, s) for s in self._seeds(LEAST) for cell in self._left()]
            self.pilot = {trial.key for trial in undone(first)}
        while True:
            trials = [
                self._trial(cell, seed)
                for seed in self._seeds(count)
                for cell in self._left()
            ]  # fmt: skip
            self._run(f"{count} seeds", trials)
            if self.plan.seeds is not None or count >= self.plan.max_seeds:
                return
            if not self._undecided(trials):
                return
            count += 1

    def _undecided(self, trials: Sequence[Trial]) -> list[str]:
        names = [cell.name for cell in self._left()]
        values = {name: self._values(trials, name) for name in names}
        baseline = values.pop(names[0])
        if not baseline:
            return []
        effect = self.plan.effect * abs(sum(baseline.values()) / len(baseline))
        comparisons = compare(
            baseline,
            values,
            effect=effect,
            alpha=self.asking.alpha,
            lower_is_better=not higher_is_better(self.plan.metric),
            looks=self.plan.looks,
            ratio=self.plan.noise_ratio,
            prior=prior_of(self.asking.entry),
        )
        return undecided(comparisons, effect)

    # Their parts

    def _values(
        self, trials: Sequence[Trial], cell: str | None = None, label: str | None = None
    ) -> dict[int, float]:
        return values_of(trials, self.plan.metric, cell, label, last=self.plan.last)

    def _left(self) -> list[Cell]:
        return [cell for cell in self.prepared.live if cell.name not in self.pruned]

    def _seeds(self, count: int, offset: int = 0) -> list[int]:
        return [self.prepared.base.seed + offset + number for number in range(count)]

    def _trial(
        self,
        cell: Cell,
        seed: int,
        *,
        stage: str = "main",
        values: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> Trial:
        assert cell.recipe is not None
        chosen = {**self.tuned.get(cell.name, {}), **(values or {})}
        text = label if label is not None else _label(values or {})
        return self.trials.make(
            cell.name,
            self.prepared.base,
            seed,
            stage=stage,
            label=text,
            values={**held(self.plan.vary_seed, self.prepared.base), **cell.patch, **chosen},
        )

    def _run(self, stage: str, trials: Sequence[Trial]) -> None:
        """Run the missing trials; the record is written before and after."""
        known = {_entry(trial) for trial in self.all}
        self.all += [trial for trial in trials if _entry(trial) not in known]
        self._write()
        waiting = undone({trial.key: trial for trial in trials}.values())
        self.watcher.stage(stage, trials, len(trials) - len(waiting))
        if not waiting:
            return
        stopped = 0
        jobs = [trial.job(self.parents.get((trial.cell, trial.seed))) for trial in waiting]
        with contextlib.closing(_as_generator(self.executor.run(jobs, self.watcher))) as ending:
            for ended in ending:
                self._keep(ended)
                self.watcher.end(ended)
                stopped += ended.status == STOPPED
                if ended.job.request["key"] in self.pilot:
                    self.pilot.remove(ended.job.request["key"])
                    if not self.pilot and (forecast := self.forecast()) is not None:
                        self.watcher.forecast(forecast)
        self._write()
        if stopped:  # by somebody else's signal: what is left is not a result
            raise SweepStopped(self.out, signal.SIGTERM)

    def _keep(self, ended: FinishedJob) -> None:
        """Write the result of a trial whose worker could not."""
        path = ended.job.folder / "result.json"
        if not path.exists():
            self.folder.write(path, json.dumps(dict(ended.result), indent=1))

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """In this context a signal stops the trials, which save, and raises SweepStopped."""

        def stop(number: int) -> None:
            raise SweepStopped(self.out, number)

        with stopped_by(stop, heeded()):
            yield

    def _write(self) -> Record:
        """Write the record of all results so far."""
        prepared = self.prepared
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        content = {
            "plan": self.plan.to_dict(),
            "campaign": self.asking.entry,
            "command": sys.argv,
            "written": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "environment": {
                "strawberry": strawberry.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "device": device_name(accelerator or torch.device("cpu")),
                "slots": self.executor.slots,
            },
            "name": prepared.base.name,
            "block_size": prepared.base.model.block_size,
            "looks": self.plan.looks,
            "cells": [self._cell(cell) for cell in prepared.cells],
            "trials": [
                {
                    "cell": trial.cell,
                    "stage": trial.stage,
                    "seed": trial.seed,
                    "label": trial.label,
                    "key": trial.key,
                    "folder": str(trial.folder.relative_to(self.out)),
                }
                for trial in self.all
            ],
        }
        self.folder.write(self.out / RECORD, json.dumps(content, indent=1, default=str))
        return Record.read(self.out)

    def _cell(self, cell: Cell) -> dict[str, Any]:
        budget = self.prepared.budgets.get(cell.name)
        return {
            "name": cell.name,
            "patch": dict(cell.patch),
            "skipped": cell.skipped,
            "resized": cell.resized,
            "tuned": self.tuned.get(cell.name, {}),
            "pruned": self.pruned.get(cell.name, ""),
            "warnings": self.prepared.warnings.get(cell.name, []),
            "budget": budget.to_dict() if budget else None,
            "tuning_trials": sum(t.cell == cell.name and t.stage == "tune" for t in self.all),
        }


def make_executor(wanted: Any, plugins: Plugins) -> Executor:
    """The executor that `wanted` names, as in a recipe: `local`, or a mapping with `use`.

    Raises RecipeError for anything else, and StrawberryError if it is refused.
    """
    reader = ComponentReader(plugins)
    spec = reader.component("executor", located(wanted, Location("--executor", 1, 1)), "executor")
    if spec is None:
        raise RecipeError(in_order(reader.problems))
    executor: Executor = spec.construct(ExecutorSite(Path.cwd()), contract=Executor)
    return executor


def _entry(trial: Trial) -> tuple[str, str, str, str]:
    """A trial's entry in the record; cells with the same trial share it."""
    return trial.cell, trial.stage, trial.label, trial.key


def _label(values: Mapping[str, Any]) -> str:
    return " ".join(f"{path.rsplit('.', 1)[-1]}={value}" for path, value in values.items())


def _as_generator(iterator: Iterator[FinishedJob]) -> Any:
    """An iterator with `close`, so that an executor learns of a stop at once."""
    return iterator if hasattr(iterator, "close") else (item for item in iterator)
