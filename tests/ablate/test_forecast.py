"""What is told of numbers of seeds before a sweep, against simulated sweeps and real folders."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strawberry.ablate import forecast as module
from strawberry.ablate.forecast import Forecast, Wanted, forecast
from strawberry.ablate.known import Noise, earlier_noise
from strawberry.ablate.plan import Plan
from strawberry.ablate.preparing import prepare
from strawberry.ablate.report import outlook, tabulate
from strawberry.ablate.statistics import compare
from strawberry.ablate.sweep import Sweep
from strawberry.cli.app import run as command
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from tests.ablate.conftest import PlanMaker
from tests.ablate.test_sweep import Counts, Scripted

NAMES = "abcd"
CELLS = [{"name": n, "patch": {}, "budget": {"flops": 1e9 * k}} for k, n in enumerate(NAMES, 1)]
NOISE = Noise(0.02, 6, 0.01, 0.05, 3.0, 1e-9, {"a": 5.0}, {"a": 1e9}, "a test")
VALUES = {"train.learning_rate": (0.1, 0.2), "train.grad_clip": (0.5, 1.0)}


def plan(**fields: Any) -> dict[str, Any]:
    """That of a list of cells."""
    return Plan(Path("x.yaml"), mode="one_at_a_time", **fields).to_dict()


def loss(recipe: Any) -> float:
    """Of a trial that trains nothing: no two cells differ by the same with two seeds."""
    train = recipe["train"]
    part = train["learning_rate"] * 7 + train["grad_clip"] * 3 + recipe["seed"] * 11
    return 3.0 + 0.01 * math.sin(1000 * part)


class Told(Counts):
    """Notes what was forecast, and after how many trials."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, Forecast | None]] = []

    def forecast(self, made: Forecast | None) -> None:
        """Note it."""
        self.told.append((len(self.started), made))


def test_what_is_told_is_found_in_four_of_five_sweeps() -> None:
    """A difference as large as three seeds are said to find is found in 80 % of 200 tables."""
    made = forecast(plan(), CELLS, NOISE, slots=1)
    (shift,) = (p.finds for p in made.prospects if p.seeds == 3)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        values = rng.normal(3, NOISE.deviation, (4, 3)) + rng.normal(0, 1, 3)
        values[1] += shift
        rows = [dict(enumerate(row.tolist())) for row in values]
        made_of = compare(rows[0], dict(zip("bcd", rows[1:], strict=True)), effect=0.01)
        found += made_of["b"].verdict == "worse"
    assert abs(found / 200 - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 200)


def test_the_seeds_that_a_difference_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fewest that find it; by the root of their number they come to nearly the same."""
    made = forecast(plan(), CELLS, NOISE, slots=1, wanted=Wanted(0.03))
    assert made.needed is not None
    by_number = {
        p.seeds: p.finds
        for n in (made.needed - 1, made.needed)
        for p in forecast(plan(seeds=n), CELLS, NOISE, slots=1).prospects
    }
    assert by_number[made.needed] <= 0.03 < by_number[made.needed - 1]
    assert by_number[3] > by_number[5] > by_number[8]
    monkeypatch.setattr(module, "DRAWN", 9)
    drawn = forecast(plan(), CELLS, NOISE, slots=1, wanted=Wanted(0.03)).needed
    assert drawn is not None
    assert made.needed <= drawn <= made.needed + 2
    far = forecast(plan(), CELLS, NOISE, slots=1, wanted=Wanted(1e-6))
    assert far.needed is None
    assert "takes more than 1,000 seeds" in outlook.lines(far)[-1]


def test_a_share_is_one_of_the_baseline() -> None:
    """`effect` of the plan is, and so is what is named in per cent; a number is in the unit."""
    assert forecast(plan(effect=0.02), CELLS, NOISE, slots=1).wanted == pytest.approx(0.06)
    for text, goal in (("1%", 0.03), ("0.5", 0.5)):
        made = forecast(plan(), CELLS, NOISE, slots=1, wanted=Wanted.parse(text))
        assert made.wanted == pytest.approx(goal)
    for text in ("0", "-1", "nan", "x", "%"):
        with pytest.raises(StrawberryError, match="--find: expected a difference above 0"):
            Wanted.parse(text)


def test_the_time_is_of_what_is_left() -> None:
    """A cell's own time where its cost is the same, by FLOPs elsewhere, over what runs at once."""
    made = forecast(plan(seeds=4), CELLS, NOISE, slots=2, done={"a": 3, "b": 9})
    times = {p.seeds: p.seconds for p in made.prospects}
    assert times[4] == pytest.approx((1 * 5 + 0 + 4 * 3 + 4 * 4) / 2)
    assert times[3] == pytest.approx((0 + 0 + 3 * 3 + 3 * 4) / 2)


def test_one_seed_and_seeds_that_are_added() -> None:
    """One shows nothing; `auto` tells up to its most, where each look has a part of alpha."""
    alone = forecast(plan(seeds=1), CELLS, NOISE, slots=1)
    assert "1 seed detects no difference; 3 seeds detect a difference" in outlook.lines(alone)[1]
    fixed = {p.seeds: p.finds for p in alone.prospects}
    added = forecast(plan(seeds=None, max_seeds=6), CELLS, NOISE, slots=1, wanted=Wanted(0.01))
    assert [p.seeds for p in added.prospects] == [3, 5, 6]
    assert all(p.finds > fixed[p.seeds] for p in added.prospects if p.seeds in fixed)
    assert outlook.lines(added)[-1].endswith("; max_seeds is 6.")


def test_it_is_told_after_two_seeds_and_at_once_the_next_time(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """Once each; a grid's factors find less than cells do, and the report says it again."""
    made, first, again, other = make_plan(vary=VALUES, seeds=4), Told(), Told(), Told()
    out = tmp_path / "out"
    record = Sweep(prepare(made, plugins), Scripted(loss), out, first).run()
    assert [(n, f is not None) for n, f in first.told] == [(0, False), (8, True)]
    early = first.told[1][1]
    assert early is not None
    assert early.noise.freedom == 3
    three = next(p for p in early.prospects if p.seeds == 3)
    assert three.factors.keys() == {"learning_rate", "grad_clip"}
    assert max(three.factors.values()) < three.finds
    Sweep(prepare(made, plugins), Scripted(loss), out, again).run()
    ((_, late),) = again.told
    assert late is not None
    assert late.noise.freedom == 9
    table = tabulate(record)
    assert table.forecast is not None
    assert table.forecast.noise.deviation == pytest.approx(late.noise.deviation)
    assert table.spread.seeds == pytest.approx(late.noise.deviation)
    longer = make_plan(vary=VALUES, seeds=2, overrides=("train.max_iters=7",))
    Sweep(prepare(longer, plugins), Scripted(loss), out, other).run()
    assert other.told == [(0, None)]  # what is there is of other trials, and two seeds are all


def test_the_noise_of_an_earlier_sweep(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """It is told before the first trial, with what was different there; none is an error."""
    out, told = tmp_path / "out", Told()
    Sweep(prepare(make_plan(vary=VALUES, seeds=2), plugins), Scripted(loss), out, Counts()).run()
    vary = {"train.learning_rate": (0.1, 0.3)}
    new = prepare(
        make_plan(vary=vary, vary_seed=("init",), overrides=("train.max_iters=8",)), plugins
    )
    noise = earlier_noise(out, new)
    assert (
        "of 6 steps, but these trials have 8; there: seeds vary initial weights, data"
        in noise.source
    )
    Sweep(new, Scripted(loss), tmp_path / "new", told, noise=noise).run()
    ((before, made),) = told.told
    assert before == 0
    assert made is not None
    assert made.noise is noise
    lone = make_plan(vary=VALUES, seeds=1)
    Sweep(prepare(lone, plugins), Scripted(loss), tmp_path / "lone", Counts()).run()
    with pytest.raises(StrawberryError, match="no noise estimate; it needs two cells"):
        earlier_noise(tmp_path / "lone", new)
    with pytest.raises(StrawberryError, match="contains no ablation"):
        earlier_noise(tmp_path / "nothing", new)
    scores = replace(new, plan=replace(new.plan, metric="val_accuracy"))
    with pytest.raises(StrawberryError, match="metric 'val_accuracy' was not measured"):
        earlier_noise(out, scores)


def test_the_command_line_tells_it(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dry run too, in JSON too; what can't be is refused before anything is built."""
    monkeypatch.chdir(tmp_path)
    words = ["ablate", str(recipe_file), "--vary", "ffn=swiglu,none", "--set", "train.max_iters=2"]
    told = run_quietly([*words, "--seeds", "2", "--out", "early"], capsys)
    assert "1 degree of freedom), from the trials of this sweep" in " ".join(told.split())
    options = ["--noise-from", "early", "--find", "0.5"]
    found = json.loads(run_quietly([*words, *options, "--dry-run", "--json"], capsys))
    assert found["forecast"]["wanted"] == 0.5
    assert found["forecast"]["noise"]["source"] == "the sweep in early"
    assert "will show what these seeds can detect" in run_quietly([*words, "--dry-run"], capsys)
    assert command([*words, "--noise-from", "nowhere"]) == 2
    assert "nowhere: contains no ablation" in capsys.readouterr().err
    assert command([*words, "--find", "much"]) == 2
    assert "--find: expected a difference above 0" in capsys.readouterr().err


def run_quietly(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that succeeds writes to standard output."""
    assert command(words) == 0
    return capsys.readouterr().out
