"""Averages of weights: by literal sums, in runs, after a resume, and where they are chosen."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from strawberry.cli.app import run
from strawberry.components.averaging.ema import EMA
from strawberry.components.averaging.latest import Latest
from strawberry.contracts import Averaging, RunSite, State
from strawberry.errors import StrawberryError
from strawberry.generation.load import load_run
from strawberry.runs import checkpoint
from strawberry.training import Interrupted, evaluate, train
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import StopAt

SITE = RunSite(max_iters=40, batch_size=2, block_size=16, depth=1)
TWO = [{"use": "ema", "decay": 0.5}, {"use": "latest", "count": 2, "every": 2}]


def values(averaging: Averaging, path: list[float]) -> list[float | None]:
    """The average after each step of one number's path."""
    kept: State = {}
    told = []
    for step, weight in enumerate(path, 1):
        averaging.update(kept, torch.tensor([weight], dtype=torch.float64), step)
        value = averaging.value(kept, step)
        told.append(None if value is None else float(value))
    return told


def test_ema_is_the_recurrence() -> None:
    """The recurrence in rationals, with a warm-up of d and without, and at every third step."""
    path = [float(n * n % 7) for n in range(1, 30)]
    for warmup, every in ((True, 1), (False, 1), (True, 3)):
        mean, expected = None, []
        for step, weight in enumerate(path, 1):
            n = step // every
            d = min(Fraction(9, 10), Fraction(1 + n, 10 + n)) if warmup else Fraction(9, 10)
            if step % every == 0:
                mean = Fraction(weight) if mean is None else d * mean + (1 - d) * Fraction(weight)
            expected.append(math.nan if mean is None else float(mean))
        averaging = EMA(SITE, decay=0.9, warmup=warmup, every=every)
        told = [math.nan if value is None else value for value in values(averaging, path)]
        assert told == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_latest_is_the_mean_of_the_last() -> None:
    """Of the weights after the last three of every second step, or of as many as there are."""
    path = [float(n * n % 11) for n in range(1, 20)]
    told = values(Latest(SITE, count=3, every=2), path)
    for step in range(1, 20):
        taken = [path[s - 1] for s in range(2, step + 1, 2)][-3:]
        assert told[step - 1] == (pytest.approx(sum(taken) / len(taken)) if taken else None)


def test_they_are_measured_beside_the_raw_weights(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The run is what it is without them, bit for bit, and `eval` finds each of them again."""
    changes: dict[str, Any] = {"model": {"dropout": 0.0}}
    plain = train(make_recipe(**changes), tmp_path / "plain").metrics
    told = train(make_recipe(averaging=TWO, **changes), tmp_path / "run").metrics
    assert {name: told[name] for name in plain} == plain
    assert told["val_loss_ema"] != told["val_loss"] != told["val_loss_latest"]
    for name in ("ema", "latest"):
        found = evaluate(tmp_path / "run", average=name)
        assert found["val_loss"] == pytest.approx(told[f"val_loss_{name}"], rel=1e-6)
    assert evaluate(tmp_path / "run")["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-6)
    own = load_run(tmp_path / "run").model.state_dict()
    average = load_run(tmp_path / "run", average="latest").model.state_dict()
    assert any(not torch.equal(own[name], average[name]) for name in own)
    with pytest.raises(StrawberryError, match="there is no average 'emma'; did you mean 'ema'"):
        load_run(tmp_path / "run", average="emma")
    with pytest.raises(StrawberryError, match="averages of this run: none"):
        load_run(tmp_path / "plain", average="ema")


def test_a_resumed_run_has_the_same_averages(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two updates and resumed, all that is kept is bit for bit that of one run."""
    recipe = make_recipe(averaging=[*TWO, "ema"], train={"checkpoint_interval": 3})
    train(recipe, tmp_path / "whole")

    with monkeypatch.context() as patch:
        StopAt(5, patch)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "twice")
    train(recipe, tmp_path / "twice", resume=True)
    one, two = (
        checkpoint.load_newest(tmp_path / name / "checkpoints")[0] for name in ("whole", "twice")
    )
    kept = [name for name in one.optimizer if name.startswith("averages/")]
    assert {name.split("/")[1] for name in kept} == {"ema", "latest", "ema_2"}
    assert all(torch.equal(one.optimizer[name], two.optimizer[name]) for name in kept)


def test_build_counts_what_is_kept(
    make_recipe: RecipeMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One copy of the weights for `ema`, two for these `latest`."""
    import json

    recipe = make_recipe(averaging=TWO)
    assert run(["build", str(recipe.source), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["averages_bytes"] == 3 * told["parameter_bytes"]
