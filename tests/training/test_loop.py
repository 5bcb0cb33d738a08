import importlib
import json
import math
import os
import random
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import strawberry
from strawberry.contracts import Tracker
from strawberry.errors import PluginError, StrawberryError
from strawberry.model.language_model import LanguageModel
from strawberry.runs import checkpoint
from strawberry.runs.folder import RunFolder
from strawberry.training import Diverged, Interrupted, loop as loop_module, train
from strawberry.training.optimizers import Optimizers
from tests.training.conftest import RecipeMaker

MUON = {"use": "muon", "lr": 0.02, "momentum_warmup": 5}
TIMES = ("tokens_per_second", "seconds")


class StopAt(Tracker):
    """Asks for a stop, as a signal would, once a step is done."""

    def __init__(self, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step = step
        original = Optimizers.step

        def step_and_ask(optimizers: Any, number: int) -> float:
            if number + 1 == self.step:
                signal_self()
            return original(optimizers, number)

        monkeypatch.setattr(Optimizers, "step", step_and_ask)


def signal_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics, without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_newest(folder / "checkpoints")[0].model


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.faults(1)
@pytest.mark.parametrize("optimizer", [{"use": "adamw"}, MUON])
@pytest.mark.parametrize("log_interval", [1, 3])
def test_stopped_and_resumed_equals_uninterrupted(
    make_recipe: RecipeMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: dict[str, Any],
    log_interval: int,
) -> None:
    """With dropout on, after a stop at any step, every logged number and weight is the same."""
    settings = {"log_interval": log_interval, "gradient_accumulation_steps": 2}
    recipe = make_recipe(optimizer=optimizer, train=settings)
    train(recipe, tmp_path / "whole")
    for k in range(1, 8):
        folder = tmp_path / f"stopped-{k}"
        with monkeypatch.context() as patch:
            StopAt(k, patch)
            with pytest.raises(Interrupted) as caught:
                train(recipe, folder)
        assert caught.value.exit_code == 143
        assert checkpoint.load_newest(folder / "checkpoints")[0].state["step"] == k
        random.seed(k)
        np.random.seed(k)
        torch.manual_seed(k)
        train(recipe, folder, resume=True)
        assert rows(folder) == rows(tmp_path / "whole"), k
        assert same_weights(folder, tmp_path / "whole"), k


@pytest.mark.faults(1, 8, control=True)
@pytest.mark.parametrize("part", ["random", "optimizer", "step"])
def test_each_part_of_the_state_is_needed(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """The control: a resume that drops the generators, the moments or the step differs."""
    recipe = make_recipe()
    train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        StopAt(3, patch)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "run")
    if part == "random":
        monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    elif part == "optimizer":
        monkeypatch.setattr(Optimizers, "load", lambda self, tensors, plain: None)
    else:
        original = loop_module.restore

        def forget(session: Any, recent: Any) -> list[str]:
            warnings = original(session, recent)
            session.step = 2
            return warnings

        monkeypatch.setattr(loop_module, "restore", forget)
    train(recipe, tmp_path / "run", resume=True)
    assert not same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happened after the checkpoint is done again, and logged once."""
    recipe = make_recipe(train={"checkpoint_interval": 2})
    train(recipe, tmp_path / "whole")

    class Killed(Exception):  # noqa: N818
        pass

    original = Optimizers.step

    def die(optimizers: Any, number: int) -> float:
        if number == 5:
            raise Killed
        return original(optimizers, number)

    with monkeypatch.context() as patch:
        patch.setattr(Optimizers, "step", die)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # and the last row was cut
    train(recipe, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_run_killed_before_its_first_checkpoint_starts_over(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """With nothing saved yet, --resume begins at the first step in the same folder."""
    recipe = make_recipe()
    train(recipe, tmp_path / "whole")
    run = tmp_path / "run"
    train(recipe, run)
    shutil.rmtree(run / "checkpoints")
    train(recipe, run, resume=True)
    assert rows(run) == rows(tmp_path / "whole")


@pytest.mark.faults(13)
def test_a_damaged_newest_checkpoint_is_passed_over_and_said(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """The one before is taken, with a warning, and the end is the same."""
    recipe = make_recipe(train={"checkpoint_interval": 2, "keep_checkpoints": 2})
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    (newest / "model.safetensors").write_bytes(b"rot")
    said: list[str] = []
    train(recipe, tmp_path / "run", resume=True, warn=said.append)
    assert len(said) == 1
    assert newest.name in said[0]
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_run_is_not_overwritten(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A folder with a run is refused, with both ways out; so is a folder of other things."""
    recipe = make_recipe(train={"max_iters": 1})
    train(recipe, tmp_path / "run")
    with pytest.raises(StrawberryError, match=r"--resume.*--run-dir"):
        train(recipe, tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(StrawberryError, match="not empty"):
        train(recipe, other)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


@pytest.mark.faults(10, 11)
def test_resuming_another_recipe_or_other_data_is_refused_with_the_difference(
    make_recipe: RecipeMaker, tmp_path: Path, corpus: Path
) -> None:
    """A changed field is shown with both values; a changed byte of the corpus is noticed."""
    train(make_recipe(train={"max_iters": 2}), tmp_path / "run")
    with pytest.raises(StrawberryError, match=r"train\.learning_rate: 0\.003 -> 0\.1"):
        train(
            make_recipe(train={"max_iters": 2, "learning_rate": 0.1}),
            tmp_path / "run",
            resume=True,
        )
    file = corpus / "03.txt"
    file.write_text(file.read_text().replace("cat", "cow", 1))
    with pytest.raises(StrawberryError, match="data"):
        train(make_recipe(train={"max_iters": 2}), tmp_path / "run", resume=True)


def test_a_failure_before_the_first_step_leaves_no_folder(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Data that can't be had does not leave an empty run behind."""
    recipe = make_recipe(data={"use": "text", "path": str(tmp_path / "nowhere")})
    with pytest.raises(StrawberryError, match="nowhere"):
        train(recipe)
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def _poison(where: str, value: float) -> Callable[..., Any]:
    original = LanguageModel.loss
    calls = {"n": 0}

    def loss(model: LanguageModel, x: torch.Tensor, y: torch.Tensor, **options: Any) -> Any:
        if model.training:
            calls["n"] += 1
        result = original(model, x, y, **options)
        if calls["n"] != 6 or not model.training:
            return result
        if where == "loss":
            return type(result)(result.total * value, result.cross_entropy * value)
        if where == "constant":
            return type(result)(result.total + value, result.cross_entropy)
        result.total.register_hook(lambda gradient: gradient * value)
        return result

    return loss


@pytest.mark.faults(26)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "constant", "gradient"])
@pytest.mark.parametrize("log_interval", [1, 100])
def test_what_is_not_finite_stops_the_run_before_the_weights_change(
    make_recipe: RecipeMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    value: float,
    log_interval: int,
) -> None:
    """In the loss, an added term or a gradient: the step is named, nothing poisoned is kept."""
    settings = {"log_interval": log_interval, "checkpoint_interval": 1, "keep_checkpoints": 9}
    recipe = make_recipe(train=settings)
    monkeypatch.setattr(LanguageModel, "loss", _poison(where, value))
    with pytest.raises(Diverged, match="step 6") as caught:
        train(recipe, tmp_path / "run")
    assert caught.value.exit_code == 1
    found, warnings = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    assert (found.state["step"], warnings) == (5, [])
    assert all(torch.isfinite(tensor).all() for tensor in found.model.values())


@pytest.mark.faults(26)
def test_a_poisoned_optimizer_state_is_never_saved(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that an update has spoiled don't reach a checkpoint, though the loss was finite."""
    original = Optimizers.step

    def spoil(optimizers: Any, number: int) -> float:
        if number == 3:
            for _, made in optimizers.parts:
                for state in made.state.values():
                    name = "exp_avg" if "exp_avg" in state else "momentum_buffer"
                    state[name].fill_(math.nan)
        return original(optimizers, number)

    monkeypatch.setattr(Optimizers, "step", spoil)
    with pytest.raises(Diverged):
        train(make_recipe(train={"checkpoint_interval": 1}), tmp_path / "run")
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].state["step"] == 3


def test_the_gradient_is_clipped(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A limit far below the norm changes the run; the logged norm is that before clipping."""
    plain = {"max_iters": 2, "grad_clip": 0}
    train(make_recipe(train=plain), tmp_path / "free")
    train(make_recipe(train={**plain, "grad_clip": 1e-3}), tmp_path / "clipped")
    free, clipped = rows(tmp_path / "free"), rows(tmp_path / "clipped")
    assert free[0]["grad_norm"] == clipped[0]["grad_norm"] > 0.1
    assert not same_weights(tmp_path / "free", tmp_path / "clipped")


def test_the_loss_falls(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A few dozen steps on repetitive text learn something, and validation agrees."""
    recipe = make_recipe(
        model={"dropout": 0.0}, train={"max_iters": 60, "batch_size": 8, "learning_rate": 1e-2}
    )
    result = train(recipe, tmp_path / "run")
    logged = [row for row in rows(tmp_path / "run") if "loss" in row]
    assert logged[-1]["loss"] < 0.75 * logged[0]["loss"]
    assert result.metrics["val_loss"] < 0.75 * logged[0]["loss"]
    bits = result.metrics["val_loss"] / math.log(2)
    assert result.metrics["bits_per_byte"] == pytest.approx(bits, rel=0.05)


def test_rows_have_what_is_promised(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Log rows at the interval, evaluation rows at theirs and at the end, steps from 1."""
    train(make_recipe(train={"max_iters": 7, "log_interval": 3}), tmp_path / "run")
    found = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in found if "loss" in row]
    assert {3, 6, 7} <= {row["step"] for row in logged}
    assert {"step", "loss", "lr", "grad_norm", "tokens_per_second"} <= logged[0].keys()
    assert [row["step"] for row in found if "val_loss" in row] == [4, 7]
    schedule = [row["lr"] for row in logged]
    assert all(rate > 0 for rate in schedule)


class Recorder(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def model_built(self, model: Any, recipe: Any) -> None:  # noqa: D102
        self.seen.append(("built", recipe.name))

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:  # noqa: D102
        self.seen.append(("step", step))

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:  # noqa: D102
        self.seen.append(("evaluated", step))

    def checkpoint_saved(self, run: Path, step: int, path: Path) -> None:  # noqa: D102
        assert checkpoint.load(path).state["step"] == step
        self.seen.append(("saved", step))

    def run_finished(self, run: Path, status: str) -> None:  # noqa: D102
        self.seen.append(("finished", status))


def test_trackers_are_told_in_order(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Built, each logged step, evaluation, checkpoint (whole by then), end."""
    recorder = Recorder()
    recipe = make_recipe(train={"max_iters": 2, "checkpoint_interval": 1})
    train(recipe, tmp_path / "run", trackers=[recorder])
    assert recorder.seen == [
        ("built", "tiny"), ("step", 1), ("saved", 1), ("step", 2), ("evaluated", 2), ("saved", 2),
        ("finished", "finished"),
    ]  # fmt: skip


@pytest.mark.faults(39)
def test_a_failing_tracker_is_named_and_the_last_checkpoint_stays(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """A tracker that raises ends the run with a plain error, and costs no checkpoint."""

    class Broken(Recorder):
        def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
            if step == 3:
                raise KeyError("dashboard")

    broken = Broken()
    with pytest.raises(PluginError, match=r"Broken.*dashboard"):
        train(make_recipe(train={"checkpoint_interval": 1}), tmp_path / "run", trackers=[broken])
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].state["step"] == 2
    assert broken.seen[-1] == ("finished", "failed")


@pytest.mark.faults(20)
def test_two_processes_do_not_share_a_folder(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """While one holds the folder, another is refused at once and told who holds it."""
    recipe = make_recipe(train={"max_iters": 1})
    train(recipe, tmp_path / "run")
    first = RunFolder(tmp_path / "run")
    first.hold()
    try:
        with pytest.raises(StrawberryError, match=str(os.getpid())):
            train(recipe, tmp_path / "run", resume=True)
    finally:
        first.release()
    train(recipe, tmp_path / "run", resume=True)


def test_the_public_name_is_the_function(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """`strawberry.train` is the function each time, whatever was imported before."""
    importlib.import_module("strawberry.training.loop")

    for name in ("one", "two"):
        result = strawberry.train(make_recipe(train={"max_iters": 1}), tmp_path / name)
        assert result.folder == tmp_path / name
