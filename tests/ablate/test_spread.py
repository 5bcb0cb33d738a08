"""Where a table's noise is, and a metric that is a mean of evaluations, against sums by hand."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.ablate.preparing import prepare
from strawberry.ablate.report import tabulate
from strawberry.ablate.spread import jitter, residual, spread
from strawberry.ablate.sweep import Sweep, SweepObserver
from strawberry.contracts.execution import Job
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from tests.ablate.conftest import PlanMaker
from tests.ablate.test_sweep import Scripted

STEPS = (10, 20, 30, 40, 50)
SCATTER = (-1.0, 2.0, 0.0, -2.0, 1.0)  # no parabola through equal steps has a part of it


def test_what_cells_and_seeds_leave() -> None:
    """Of a table of two by two it is half the interaction four times: 4 x 0.5^2 over one degree."""
    assert residual({"a": {1: 1.0, 2: 2.0}, "b": {1: 3.0, 2: 6.0}}) == (pytest.approx(1.0), 1)
    lacking = {"a": {1: 1.0, 2: 2.0, 3: 9.0}, "b": {1: 3.0, 2: 6.0}}  # seed 3 has no pair
    assert residual(lacking) == (pytest.approx(1.0), 1)
    assert residual({"a": {1: 1.0, 2: 2.0}, "b": {}}) == (None, 0)
    assert residual({}) == (None, 0)


def test_the_scatter_about_a_parabola() -> None:
    """What is no parabola of the last five counts, at 5 - 3 degrees a run; shorter runs don't."""
    trend = [3.0 - 0.2 * s + 0.01 * s * s for s in STEPS]
    run = [(0.0, 99.0), *((s, t + d) for s, t, d in zip(STEPS, trend, SCATTER, strict=True))]
    smooth = list(zip(STEPS, trend, strict=True))
    assert jitter([run]) == pytest.approx(math.sqrt(10 / 2))
    assert jitter([run, smooth, run[:3]]) == pytest.approx(math.sqrt(10 / 4))
    assert jitter([run[:3]]) is None


def test_the_noise_of_means_of_evaluations() -> None:
    """Scatter of the last evaluation goes as it is averaged; rows are their root mean square."""
    ends = {"a": {1: 1.0, 2: 1.0}, "b": {1: 1.0, 2: 5.0}}
    curves = {c: {s: [(1.0, 1.0), (2.0, v)] for s, v in e.items()} for c, e in ends.items()}
    found = spread(ends, curves, [3.0, 4.0])
    assert (found.seeds, found.freedom) == (pytest.approx(2.0), 1)
    assert found.averaged == {1: pytest.approx(2.0), 2: pytest.approx(1.0)}
    assert found.rows == pytest.approx(math.sqrt(12.5))
    assert found.jitter is None


class Logged(Scripted):
    """Writes a log too, whose last evaluation ranks trials as the mean of the last two doesn't."""

    def __init__(self) -> None:
        super().__init__(lambda recipe: 10 - mean_of(recipe))

    def write(self, job: Job, result: Mapping[str, Any]) -> None:
        """A row for each of three evaluations."""
        mean = mean_of(yaml.safe_load(job.request["recipe"]))
        last = 10 - mean
        rows = [{"step": s, "val_loss": v} for s, v in enumerate((99.0, 2 * mean - last, last), 1)]
        (job.folder / "run").mkdir()
        lines = "\n".join(map(json.dumps, rows))
        (job.folder / "run" / "metrics.jsonl").write_text(lines)
        super().write(job, result)


def mean_of(recipe: Mapping[str, Any]) -> float:
    """What a trial's last two evaluations are in the mean."""
    train = recipe["train"]
    return float(train["learning_rate"] + train["grad_clip"] + 0.01 * recipe["seed"])


def test_tuning_halving_and_the_table_use_the_mean(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """With `last: 2` all three go by a mean of two evaluations; the last says the opposite."""
    plan = make_plan(
        vary={"train.learning_rate": (0.3, 0.1, 0.2, 0.4)}, tune={"train.grad_clip": (0.5, 1.0)},
        halving=True, seeds=2, last=2, overrides=("train.eval_interval=1", "train.max_iters=8"),
    )  # fmt: skip
    record = Sweep(prepare(plan, plugins), Logged(), tmp_path / "out", SweepObserver()).run()
    cells = {cell["name"]: cell for cell in record.content["cells"]}
    assert cells["learning_rate=0.1"]["tuned"] == {"train.grad_clip": 0.5}
    table = tabulate(record)
    assert set(table.pruned) == {"learning_rate=0.2", "learning_rate=0.4"}
    assert [row.name for row in table.rows] == ["learning_rate=0.1", "learning_rate=0.3"]
    assert dict(table.rows[0].values) == {1: pytest.approx(0.61), 2: pytest.approx(0.62)}
    comparison = table.rows[0].comparison
    assert comparison is not None
    assert comparison.difference == pytest.approx(-0.2)
    assert table.measure == "val_loss, mean of the last 2"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"last": 4}, "has 3 evaluations, every 2 of 6 steps, but 4 are needed"),
        ({"last": 2, "halving": True}, "has 1 evaluation, every 2 of 1 steps"),
        ({"last": 2, "tune": {"train.eval_interval": (2, 0)}}, "1 evaluation, after the last step"),
    ],
)
def test_too_few_evaluations_are_refused(
    fields: dict[str, Any], words: str, make_plan: PlanMaker, plugins: Plugins
) -> None:
    """Before anything is run: in the whole run, after halving, and with what is tuned."""
    plan = make_plan(vary={"train.learning_rate": (0.1, 0.2)}, **fields)
    with pytest.raises(StrawberryError, match=words):
        prepare(plan, plugins)
