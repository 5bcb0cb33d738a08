"""Searches over rate, batch size and warm-up, whose trials write results instead of training."""

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.ablate.planfile import make_plan
from strawberry.ablate.preparing import prepare
from strawberry.ablate.sweep import SweepObserver
from strawberry.cli.app import run as command
from strawberry.contracts.execution import Job
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.tune import result
from strawberry.tune.rounds import TrialCost, plan, plausible
from strawberry.tune.search import TUNE, Search, TunePlan
from strawberry.tune.space import OWN, Choice, batches, changes, choices, trial
from tests.ablate.test_sweep import Scripted

BEST = 0.04
"""The learning rate at which the scripted loss is lowest; the recipe has 0.01."""


class Timed(Scripted):
    """Trials that also log their speed: 100 sequences a second, for any batch."""

    def __init__(self, loss: Callable[[Mapping[str, Any]], float | None]) -> None:
        super().__init__(loss)
        self.names: list[str] = []

    def write(self, job: Job, result: Mapping[str, Any]) -> None:
        """A row for each step, beside the result."""
        self.names.append(job.folder.parents[1].name)
        recipe = yaml.safe_load(job.request["recipe"])
        row = {"loss": 1.0, "tokens_per_second": 100.0 * recipe["model"]["block_size"]}
        (job.folder / "run").mkdir()
        rows = [json.dumps({"step": n, **row}) for n in range(recipe["train"]["max_iters"])]
        (job.folder / "run/metrics.jsonl").write_text("\n".join(rows) + "\n")
        super().write(job, result)


def loss(recipe: Mapping[str, Any]) -> float:
    """Lower with more steps, and the nearer the rate is to the best; batches don't matter."""
    train = recipe["train"]
    tokens = train["max_iters"] * train["batch_size"]
    return float(abs(math.log(train["learning_rate"] / BEST)) + 10 / (1 + tokens))


def search(
    path: Path, plugins: Plugins, out: Path, loss: Any = loss, minutes: float = 0.5, **more: Any
) -> Search:
    """A search over the small recipe, long enough to be halved."""
    sets = ("train.max_iters=400", *more.pop("overrides", ()))

    def watch(_: str, __: Path) -> Any:
        return contextlib.nullcontext(SweepObserver())

    how = TunePlan(path, minutes, sets, **more)
    return Search(how, plugins, Timed(loss), out, watch, lambda _: None)


def test_more_time_means_more_settings() -> None:
    """Rounds halve the settings and double their length, and fit into the budget."""
    cost = TrialCost(run=100.0, start=2.0)
    known = {seconds: plan(seconds, cost, 1000) for seconds in (60, 300, 700, 2000)}
    for seconds, rounds in known.items():
        assert cost.of(rounds) <= seconds * 1.0001
        for one, after in itertools.pairwise(rounds):
            assert after.count * 2 == one.count
            assert after.share == pytest.approx(2 * one.share)
    counts = [rounds[0].count for rounds in known.values()]
    assert counts == sorted(counts)
    assert counts[-1] == 32
    assert known[2000][-1].share == 1.0
    assert plan(5, cost, 1000) == []


def test_times_that_cannot_be_are_bounded() -> None:
    """A larger batch takes no less time for a step, and hardly more for a sequence."""
    assert plausible({4: 1.0, 2: 0.1, 8: 0.5, 16: 9.0}, 4) == {4: 1.0, 2: 0.4, 8: 1.0, 16: 2.5}
    assert plausible({4: 1.0, 2: 0.6, 8: 1.9}, 4) == {4: 1.0, 2: 0.6, 8: 1.9}


def test_every_rate_is_scaled(recipe_file: Path, plugins: Plugins) -> None:
    """One factor on the common rate, each optimizer's own and the last; warm-up is a share."""
    optimizer = "[{use: adamw, params: vector, lr: 0.5}, {use: muon, lr: 0.02, rest: {use: adamw}}]"
    sets = [f"optimizer={optimizer}", "train.min_lr=0.001", "train.lr_decay_iters=3"]
    recipe = load_recipe(recipe_file, sets, plugins=plugins)
    assert changes(recipe, Choice(2.0, 4, 0.1), 60) == {
        "train.learning_rate": 0.02, "train.min_lr": 0.002,
        "optimizer[0].lr": 1.0, "optimizer[1].lr": 0.04,
        "train.max_iters": 60, "train.warmup_iters": 6, "train.lr_decay_iters": 30,
        "train.batch_size": 4,
    }  # fmt: skip


def test_trials_are_measured_on_the_same_rows(recipe_file: Path, plugins: Plugins) -> None:
    """Whatever their batch size, and with the recipe's own settings first."""
    recipe = load_recipe(recipe_file, ["train.batch_size=6", "train.eval_iters=3"], plugins=plugins)
    sizes = batches(recipe)
    assert sizes == [6, 3, 12, 24]
    tried = choices(recipe, sizes, 16)
    assert len(tried) == 16
    assert next(iter(tried)) == OWN
    rows = {c.batch * trial(recipe, c, 50, 24)["train.eval_iters"] for c in tried.values()}
    assert rows == {24}


def test_finds_the_rate(recipe_file: Path, plugins: Plugins, tmp_path: Path) -> None:
    """The worse half is dropped after each round, the recipe's own settings never."""
    one = search(recipe_file, plugins, tmp_path / "out", minutes=0.6)
    one.run()
    assert [each.round.count for each in one.done] == [8, 4, 2]
    for each, after in itertools.pairwise(one.done):
        best = sorted((n for n in each.values if n != OWN), key=lambda n: each.values[n] or 0.0)
        assert list(after.values) == [OWN, *best[: after.round.count - 1]]
    rates = [c.rate for c in one.choices.values()]
    assert one.choices[one.ranked()[0]].rate == min(rates, key=lambda r: abs(math.log(r / 4)))
    table = result.rows(one)
    assert [sum(map(bool, row)) for row in table] == [7, 7, 6, 6, 5, 5, 5, 5]
    assert "as it is" in [row[0] for row in table[:2]]


def test_hands_over_a_recipe(recipe_file: Path, plugins: Plugins, tmp_path: Path) -> None:
    """It extends the one given, takes as long, keeps overrides, and its plan can be carried out."""
    one = search(recipe_file, plugins, tmp_path / "out", overrides=["model.n_embd=24"])
    one.run()
    target = tmp_path / "tuned.yaml"
    worth = result.write(one, target)
    tuned, chosen = load_recipe(target, plugins=plugins), one.choices[one.ranked()[0]]
    assert tuned.name == "small-tuned"
    assert tuned.model.n_embd == 24
    assert tuned.train.batch_size == chosen.batch
    assert tuned.train.max_iters * tuned.train.batch_size == 400 * 2  # 100 sequences a second
    assert tuned.train.learning_rate == pytest.approx(0.01 * chosen.rate, rel=0.01)
    cells = prepare(make_plan(worth, {}, plugins=plugins), plugins).live
    assert [cell.name for cell in cells] == ["recipe", "tuned"]
    assert cells[1].recipe is not None
    assert cells[1].recipe.train == tuned.train


def test_a_narrow_sibling_is_carried_over(
    recipe_file: Path, plugins: Plugins, tmp_path: Path
) -> None:
    """Trials have its width, and the recipe becomes muP with that base."""
    widths = set()

    def seen(recipe: Mapping[str, Any]) -> float:
        widths.add(recipe["model"]["n_embd"])
        return loss(recipe)

    one = search(recipe_file, plugins, tmp_path / "out", seen, width=8)
    one.run()
    result.write(one, tmp_path / "tuned.yaml")
    tuned = load_recipe(tmp_path / "tuned.yaml", plugins=plugins)
    assert widths == {8}
    assert tuned.model.n_embd == 16
    parametrization = tuned.model.components["parametrization"]
    assert parametrization.use == "strawberry/mup"
    assert parametrization.fields["base_width"] == 8
    with pytest.raises(StrawberryError, match="--width: 32 is wider than the recipe"):
        search(recipe_file, plugins, tmp_path / "wide", width=32)
    with pytest.raises(StrawberryError, match="--width: there is no sibling of width 7"):
        search(recipe_file, plugins, tmp_path / "odd", width=7)


def test_goes_on_where_it_was_stopped(recipe_file: Path, plugins: Plugins, tmp_path: Path) -> None:
    """An interrupted search comes to the same end, and trains nothing twice."""
    whole = search(recipe_file, plugins, tmp_path / "whole")
    whole.run()
    left = 6

    def stopping(recipe: Mapping[str, Any]) -> float:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return loss(recipe)

    first = search(recipe_file, plugins, tmp_path / "out", stopping)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = search(recipe_file, plugins, tmp_path / "out")
    second.run()
    assert second.done == whole.done
    assert second.choices == whole.choices
    ran = [len(each.executor.names) for each in (first, second, whole)]  # type: ignore[attr-defined]
    assert ran[0] + ran[1] == ran[2]
    again = search(recipe_file, plugins, tmp_path / "out")
    again.run()
    assert not again.executor.names  # type: ignore[attr-defined]


def test_failures_are_told(recipe_file: Path, plugins: Plugins, tmp_path: Path) -> None:
    """A setting that diverges is dropped and shown; a batch size that fails is not tried."""

    def failing(recipe: Mapping[str, Any]) -> float | None:
        train = recipe["train"]
        return None if train["batch_size"] == 8 or train["learning_rate"] > 0.035 else loss(recipe)

    one = search(recipe_file, plugins, tmp_path / "out", failing)
    one.run()
    assert set(one.seconds) == {1, 2, 4}
    assert {c.batch for c in one.choices.values()} == {1, 2, 4}
    assert any("failed" in row for row in result.rows(one))
    assert all(one.choices[name].rate <= 3.5 for name in one.ranked())
    broken = search(recipe_file, plugins, tmp_path / "broken", lambda _: None)
    with pytest.raises(StrawberryError, match="its own settings don't train: on purpose"):
        broken.run()


def test_wrong_searches_are_refused(recipe_file: Path, plugins: Plugins, tmp_path: Path) -> None:
    """Too few minutes, another recipe's folder, and a record that can't be read."""
    with pytest.raises(StrawberryError, match=r"--minutes: 0.1 are too few: .* takes about"):
        search(recipe_file, plugins, tmp_path / "short", minutes=0.1).run()
    search(recipe_file, plugins, tmp_path / "out").run()
    with pytest.raises(StrawberryError, match="is a search over another recipe"):
        search(recipe_file, plugins, tmp_path / "out", overrides=["model.n_embd=24"]).run()
    (tmp_path / "out" / TUNE).write_text("{")
    with pytest.raises(StrawberryError, match=f"{TUNE}: can't be read"):
        search(recipe_file, plugins, tmp_path / "out").run()
    with pytest.raises(StrawberryError, match="an evaluation doesn't measure 'loss'"):
        search(recipe_file, plugins, tmp_path / "metric", metric="loss").run()


def test_the_target_is_checked_first(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is trained: its folder exists, and it isn't the recipe that is tuned."""
    for target, why in ((recipe_file, "is the recipe that is tuned"),
                        (tmp_path / "no/tuned.yaml", "no such folder")):  # fmt: skip
        out = tmp_path / "out"
        options = ["--write", str(target), "--out", str(out), "--executor", "local"]
        assert command(["--no-plugin", "all", "tune", str(recipe_file), *options]) == 2
        assert why in capsys.readouterr().err
        assert not out.exists()
