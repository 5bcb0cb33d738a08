"""Successive halving over learning rate, batch size and warm-up.

Every round is an ablation in a folder of its own, with one seed, so its trials can be interrupted,
may fail, and run wherever an executor runs them. `tune.json` notes each decision before it is
carried out; the same call goes on from there.

All trials of a round take the same time on this machine: steps are counted by measured seconds.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

from strawberry.ablate.plan import Plan, named_by
from strawberry.ablate.preparing import PreparedPlan, check_metric, prepare
from strawberry.ablate.record import Record, values_of
from strawberry.ablate.statistics import higher_is_better
from strawberry.ablate.sweep import Sweep, SweepObserver
from strawberry.ablate.trials import identity
from strawberry.ablate.waiting import LockedFolder
from strawberry.contracts.execution import FINISHED, Executor
from strawberry.errors import StrawberryError
from strawberry.files.storage import digest
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.tune.rounds import LEAST, Round, TrialCost, fitted, needed, plan, plausible
from strawberry.tune.sibling import narrower
from strawberry.tune.space import OWN, Choice, batches, choices, own, trial

TUNE: Final = "tune.json"
PROBE: Final = 24
"""Steps of a trial that measures how long a step takes; the first few are left out."""
SETTLED: Final = 4

Watch: TypeAlias = Callable[[str, Path], AbstractContextManager[SweepObserver]]
"""Makes the observer of a round, by its title and folder."""


@dataclass(frozen=True, slots=True)
class TunePlan:
    """What is tuned, and how.

    Attributes:
        recipe: the recipe's file.
        minutes: the budget.
        width: model width of the trials; None for a rule's, see `narrower`.
        overrides: overrides of the recipe.
        metric: what the settings are compared by.
        executor: the component that runs the trials, as in a recipe.
    """

    recipe: Path
    minutes: float
    overrides: tuple[str, ...] = ()
    metric: str = "val_loss"
    executor: Any = "local"
    width: int | None = None

    @property
    def folder(self) -> Path:
        """`tunings/NAME-HASH`: the same plan has the same folder."""
        return Path("tunings") / named_by(self.recipe, asdict(self))


@dataclass(slots=True)
class Done:
    """A round that was carried out, or is.

    Attributes:
        round: its trials' number and length.
        steps: of each setting, by name.
        values: the metric of each, by name; None if its trial failed, and empty before the end.
        spent: seconds of all trials.
    """

    round: Round
    steps: dict[str, int]
    values: dict[str, float | None] = field(default_factory=dict)
    spent: float = 0.0


class Search:
    """Carries out a plan in a folder.

    Args:
        plan: what is tuned.
        plugins: resolve names.
        executor: runs the trials.
        out: the folder.
        watch: makes the observers of rounds.
        say: receives messages about waiting for the folder.
    """

    def __init__(
        self,
        plan: TunePlan,
        plugins: Plugins,
        executor: Executor,
        out: Path,
        watch: Watch,
        say: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.plugins = plugins
        self.executor = executor
        self.out = out
        self.watch = watch
        self.folder = LockedFolder(out, say, "runs this search")
        self.recipe = load_recipe(plan.recipe, plan.overrides, plugins=plugins)
        self.narrow = narrower(self.recipe, plan.width)
        self.timed: dict[int, tuple[int, float]] = {}
        self.seconds: dict[int, float] = {}
        self.start = 0.0
        self.spent = 0.0
        self.choices: dict[str, Choice] = {}
        self.done: list[Done] = []

    @property
    def budget(self) -> float:
        """Seconds of trials, over all slots."""
        return 60 * self.plan.minutes * self.executor.slots

    @property
    def ended(self) -> list[Done]:
        """The rounds whose trials have ended."""
        return [each for each in self.done if each.values]

    def run(self) -> None:
        """Measure, and halve until one setting is left or the time is over.

        Raises StrawberryError if the minutes are too few, if the folder is of another search, or as
        an ablation does.
        """
        check_metric(self.plan.metric, self.recipe)
        with self.folder.held():
            self._read()
            self._measure()
            while (planned := self._next()) is not None:
                self._carry_out(planned)

    @property
    def cost(self) -> TrialCost:
        """What a trial takes, by the measurement, and by the rounds so far."""
        whole = self.recipe.train.max_iters * self.seconds[self.recipe.train.batch_size]
        first = TrialCost(whole, self.start)
        if not self.ended:
            return first
        pace = sum(e.spent for e in self.ended) / first.of([e.round for e in self.ended])
        return TrialCost(first.run * pace, first.start * pace)

    def steps(self, choice: Choice, share: float) -> int:
        """Steps that take as long as this share of the recipe's own run."""
        own_seconds = self.seconds[self.recipe.train.batch_size]
        steps = share * self.recipe.train.max_iters * own_seconds / self.seconds[choice.batch]
        return max(1, round(steps))

    def ranked(self) -> list[str]:
        """The settings of the last round that ended, best first; those that failed are left out."""
        values = self.ended[-1].values
        sign = -1.0 if higher_is_better(self.plan.metric) else 1.0
        known = {name: sign * value for name, value in values.items() if value is not None}
        return sorted(known, key=lambda name: known[name])

    # The parts of a search

    def _measure(self) -> None:
        """The seconds of a step with each batch size; one that fails is not tried."""
        if self.seconds:
            return
        sizes = batches(self.recipe)
        tried = {OWN if size == sizes[0] else f"batch {size}": size for size in sizes}
        mine = own(self.recipe)
        cells = {
            name: trial(self.recipe, Choice(1.0, size, mine.warmup), PROBE, max(sizes))
            for name, size in tried.items()
        }
        record = self._sweep("how long a step takes", "timing", cells)
        self._time(record, tried)
        beside = []
        for each in record.trials:
            spent = _spent(each.result())
            self.spent += spent
            beside.append(spent - PROBE * self.seconds.get(tried[each.cell], 0.0))
        self.start = max(0.0, statistics.median(beside))
        if sizes[0] not in self.seconds:
            result = record.of(OWN)[0].result() or {}
            why = result.get("error") or result.get("status") or "no result"
            raise StrawberryError(f"{self.plan.recipe}: its own settings don't train: {why}")
        self._write()

    def _time(self, record: Record, sizes: Mapping[str, int]) -> None:
        """Note how long a step takes with each batch size: the mean of all trials so far."""
        for name, size in sizes.items():
            steps, seconds = self.timed.get(size, (0, 0.0))
            more = _durations(record, name, self._tokens(size))
            steps, seconds = steps + len(more), seconds + sum(more)
            if steps:
                self.timed[size] = steps, seconds
        mine = self.recipe.train.batch_size
        if mine in self.timed:
            means = {size: seconds / steps for size, (steps, seconds) in self.timed.items()}
            self.seconds = plausible(means, mine)

    def _tokens(self, batch: int) -> int:
        train = self.recipe.train
        return batch * train.gradient_accumulation_steps * self.recipe.model.block_size

    def _next(self) -> Done | None:
        """The round to carry out; None when the search is over."""
        if self.done and not self.done[-1].values:
            return self.done[-1]
        left = self.budget - self.spent
        if not self.done:
            rounds = plan(left, self.cost, self.recipe.train.max_iters)
            if not rounds:
                self._refuse()
            self.choices = choices(self.recipe, list(self.seconds), rounds[0].count)
            names = list(self.choices)
        else:
            last = self.done[-1].round
            rounds = fitted(_after(last), self.cost, left) if last.count > 2 else []
            if not rounds or rounds[0].share <= last.share:
                return None
            names = self._kept(rounds[0].count)
            if len(names) < 2:
                return None
        steps = {name: self.steps(self.choices[name], rounds[0].share) for name in names}
        self.done.append(Done(rounds[0], steps))
        self._write()
        return self.done[-1]

    def _refuse(self) -> NoReturn:
        least = self.spent + needed(self.cost, self.recipe.train.max_iters)
        raise StrawberryError(
            f"--minutes: {self.plan.minutes:g} are too few: to measure each batch size, train four "
            f"settings for {LEAST} steps, and the better two for twice as many, takes about "
            f"{math.ceil(1.2 * least / self.executor.slots / 6) / 10:g} here"
        )

    def _kept(self, count: int) -> list[str]:
        """The best of the last round, and the recipe's own settings, which are never dropped."""
        return [OWN, *[name for name in self.ranked() if name != OWN][: count - 1]]

    def _carry_out(self, planned: Done) -> None:
        """Train a round's trials, and note what came of them."""
        largest = max(self.seconds)
        cells = {
            name: trial(self.recipe, self.choices[name], steps, largest)
            for name, steps in planned.steps.items()
        }
        number = self.done.index(planned) + 1
        title = f"round {number}: {planned.round.share:.1%} of a run"
        record = self._sweep(title, f"round-{number}", cells)
        for name in planned.steps:
            values = values_of(record.of(name), self.plan.metric)
            planned.values[name] = statistics.fmean(values.values()) if values else None
            planned.spent += sum(_spent(each.result()) for each in record.of(name))
        self.spent += planned.spent
        self._time(record, {name: self.choices[name].batch for name in planned.steps})
        if not self.ranked():
            raise StrawberryError(f"{self.out / f'round-{number}'}: no trial finished")
        self._write()

    def _sweep(self, title: str, folder: str, cells: Mapping[str, Mapping[str, Any]]) -> Record:
        """An ablation of these cells with one seed; the recipe's own settings come first."""
        common = {**self.narrow, **cells[OWN]}
        mine = [f"{path}={json.dumps(value)}" for path, value in common.items()]
        ablation = Plan(
            self.plan.recipe,
            overrides=(*self.plan.overrides, *mine),
            cells={name: cell for name, cell in cells.items() if name != OWN},
            seeds=1,
            campaign="none",
            metric=self.plan.metric,
            executor=self.plan.executor,
        )
        prepared: PreparedPlan = prepare(ablation, self.plugins)
        with self.watch(title, self.out / folder) as watcher:
            return Sweep(prepared, self.executor, self.out / folder, watcher, ledger=self.out).run()

    # The record

    def _identity(self) -> str:
        return digest(identity(self.recipe))

    def _read(self) -> None:
        """Take over what an earlier call noted."""
        path = self.out / TUNE
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text())
            same = content["identity"] == self._identity()
            self.seconds = {int(size): value for size, value in content["seconds"].items()}
            self.timed = {int(size): (n, value) for size, (n, value) in content["timed"].items()}
            self.start, self.spent = content["start"], content["spent"]
            self.choices = {name: Choice(**each) for name, each in content["choices"].items()}
            self.done = [
                Done(Round(**each["round"]), each["steps"], each["values"], each["spent"])
                for each in content["rounds"]
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StrawberryError(f"{path}: can't be read: {error}") from error
        if not same:
            raise StrawberryError(
                f"{self.out}: is a search over another recipe; name another folder with --out"
            )

    def _write(self) -> None:
        content = {
            "recipe": str(self.plan.recipe),
            "plan": {**asdict(self.plan), "recipe": str(self.plan.recipe)},
            "command": sys.argv,
            "written": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "identity": self._identity(),
            "slots": self.executor.slots,
            "timed": self.timed,
            "seconds": self.seconds,
            "start": self.start,
            "spent": self.spent,
            "choices": {name: asdict(choice) for name, choice in self.choices.items()},
            "rounds": [asdict(each) for each in self.done],
        }
        self.folder.write(self.out / TUNE, json.dumps(content, indent=1, default=str))


def _after(last: Round) -> list[Round]:
    """The rounds that are to follow one."""
    rounds = []
    while last.count > 2:
        last = Round(last.count // 2, min(1.0, 2 * last.share))
        rounds.append(last)
    return rounds


def _durations(record: Record, cell: str, tokens: int) -> list[float]:
    """Seconds of the steps of a cell's trials that finished, without the first few of each."""
    seconds: list[float] = []
    for each in record.of(cell):
        result = each.result()
        if result is not None and result["status"] == FINISHED:
            speeds = [row["tokens_per_second"] for row in each.rows() if row.get("loss")]
            seconds += [tokens / speed for speed in speeds[SETTLED:] if speed]
    return seconds


def _spent(result: Mapping[str, Any] | None) -> float:
    return float((result or {}).get("spent", 0.0))
