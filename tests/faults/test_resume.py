"""Section A: stops, kills and resumes; those of several ranks are in tests/training/parallel."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strawberry.cli.app import run as command
from strawberry.errors import StrawberryError
from strawberry.generation import load_run
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.runs import checkpoint
from strawberry.runs.checkpoint import CheckpointData, CheckpointPolicy
from strawberry.training import loop as loop_module, train
from strawberry.training.optimizers import Optimizers
from strawberry.training.restore import NEEDED
from strawberry.training.signals import StopRequest
from tests.faults.conftest import Calls, Figure, Killed, raising, reseal
from tests.runs.test_checkpoint import write
from tests.support import REGISTRY
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import rows, same_weights

OPTIMIZERS = REGISTRY.entries("optimizer")
NOISE = """
    import random
    import numpy
    import torch
    from strawberry.contracts import FFN
    from strawberry.plugin import hookimpl

    class Noise(FFN):
        def __init__(self, site):
            super().__init__()
            self.map = site.projection("map", site.n_embd, site.n_embd, output=True)

        def forward(self, x, use):
            y = self.map(x, use)
            if self.training and x.device.type != "meta":
                y = y * (random.random() + numpy.random.rand() + torch.rand(()))
            return y

    @hookimpl
    def strawberry_register(registry):
        registry.ffn("noise", Noise)
"""


def stopped_at(patch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Let a signal arrive within a step."""
    original = Optimizers.step

    def step_and_signal(optimizers: Any, at: int) -> float:
        if at + 1 == step:
            os.kill(os.getpid(), number)
        return original(optimizers, at)

    patch.setattr(Optimizers, "step", step_and_signal)


def interrupted(recipe: Any, folder: Path, step: int) -> None:
    """A run that was stopped at this step."""
    with pytest.MonkeyPatch.context() as patch:
        stopped_at(patch, step)
        with pytest.raises(loop_module.Interrupted):
            train(recipe, folder)


@pytest.mark.faults(1)
@pytest.mark.parametrize("own", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_optimizer_resumes_exactly(
    make_recipe: RecipeMaker, tmp_path: Path, figure: Figure, own: bool
) -> None:
    """Stopped in the middle, each ends with the rows and the bits of a run that never was."""
    chosen = [entry.name for entry in OPTIMIZERS if (entry.plugin == "strawberry") == own]
    settings = {"max_iters": 4, "eval_interval": 0, "eval_iters": 1}
    same = 0
    for name in chosen:
        recipe = make_recipe(optimizer={"use": name}, train=settings)
        train(recipe, tmp_path / name)
        folder = tmp_path / f"{name}-stopped"
        interrupted(recipe, folder, 2)
        torch.manual_seed(3)
        train(recipe, folder, resume=True)
        assert rows(folder) == rows(tmp_path / name), name
        assert same_weights(folder, tmp_path / name), name
        same += 1
    figure(len(chosen), same, "optimizers to the bit")


def _noisy(tmp_path: Path, make_recipe: RecipeMaker) -> Any:
    import textwrap

    (tmp_path / "noise.py").write_text(textwrap.dedent(NOISE))
    (tmp_path / "noisy.yaml").write_text(make_recipe(train={"max_iters": 6}).to_yaml())
    plugins = Plugins.load(files=[tmp_path / "noise.py"])
    return load_recipe(tmp_path / "noisy.yaml", ["model.stack.*.ffn=noise"], plugins=plugins)


def _disturb() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)


@pytest.mark.faults(1)
def test_every_generator_is_put_back(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A component that draws from Python's, NumPy's and torch's draws the same again."""
    recipe = _noisy(tmp_path, make_recipe)
    train(recipe, tmp_path / "whole")
    interrupted(recipe, tmp_path / "run", 3)
    _disturb()
    train(recipe, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")


@pytest.mark.faults(1, 2, 8, control=True)
@pytest.mark.parametrize(
    "part", ["random.setstate", "numpy.random.set_state", "torch.set_rng_state"]
)
def test_one_generator_less_would_differ(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """With any one of the three left as it is, the resumed run is another."""
    recipe = _noisy(tmp_path, make_recipe)
    train(recipe, tmp_path / "whole")
    interrupted(recipe, tmp_path / "run", 3)
    _disturb()
    monkeypatch.setattr(part, lambda state: None)
    train(recipe, tmp_path / "run", resume=True)
    assert not same_weights(tmp_path / "run", tmp_path / "whole")


def lost_to_kills(save: Callable[[Path, int], object], folder: Path, again: int) -> tuple[int, int]:
    """Kill a save of step `again`, after one of step 1, at each call; how often, and what is lost.

    Lost is a state in which neither the old nor the new checkpoint can be had.
    """
    killed = lost = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, killed, raising(Killed()))
            with contextlib.suppress(Killed):
                save(folder, again)
        if not calls.reached:
            return killed, lost
        killed += 1
        checkpoint.tidy(folder)  # as a resume does
        try:
            found, _ = checkpoint.load_newest(folder)
            assert found.state["step"] in (1, again)
            assert torch.equal(found.model["w"], _weights(found.state["step"]))
        except StrawberryError:
            lost += 1
        assert not list(folder.glob(f"{checkpoint.TEMPORARY}*"))


def _weights(step: int) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(step))


@pytest.mark.faults(3, 24)
@pytest.mark.parametrize("again", [2, 1])
def test_killed_at_each_call_of_a_save(tmp_path: Path, figure: Figure, again: int) -> None:
    """The old checkpoint or the new one is there, whole and alone; a step saved again too."""
    killed, lost = lost_to_kills(lambda folder, step: write(folder, step, 1), tmp_path, again)
    assert killed > 20
    figure(killed, killed - lost, "kills within save", lost=lost)


@pytest.mark.faults(3, control=True)
def test_a_save_in_place_would_be_lost(tmp_path: Path) -> None:
    """Written over the old one, a checkpoint is lost to some of the kills."""

    def in_place(folder: Path, step: int) -> None:
        made = write(folder.with_name("apart"), step)
        target = folder / "step-00000001"
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(made.iterdir()):
            (target / file.name).write_bytes(file.read_bytes())

    _, lost = lost_to_kills(in_place, tmp_path / "run", 2)
    assert lost > 0


PHASES = {
    "build": "strawberry.training.outline.build",
    "data": "strawberry.training.session.open_dataset",
    "warm-up": "strawberry.training.loop.Step",
    "eval": "strawberry.training.measuring.validate",
    "save": "strawberry.runs.checkpoint.save",
}


def signalled(name: str, number: int, patch: pytest.MonkeyPatch) -> None:
    """Let a signal arrive in a phase, the first time that it is reached."""
    module, _, attribute = PHASES[name].rpartition(".")
    original = getattr(sys.modules[module], attribute)
    sent: list[int] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    patch.setattr(PHASES[name], call)


@pytest.mark.faults(4)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_every_phase(
    recipe_file: Callable[..., Path], tmp_path: Path, number: int, code: int, figure: Figure
) -> None:
    """The exit code is the signal's; what there is to save is saved, and all goes on exactly."""
    settings = {"max_iters": 6, "checkpoint_interval": 3}
    path = str(recipe_file(train=settings))
    assert command(["train", path, "--run-dir", str(tmp_path / "whole"), "--json"]) == 0
    good = 0
    for phase in PHASES:
        folder = tmp_path / phase
        arguments = ["train", path, "--run-dir", str(folder), "--json"]
        with pytest.MonkeyPatch.context() as patch:
            signalled(phase, number, patch)
            assert command(arguments) == code, phase
        if phase in ("build", "data"):
            assert not folder.exists(), phase
        else:
            assert command([*arguments, "--resume"]) == 0
            assert rows(folder) == rows(tmp_path / "whole"), phase
            assert same_weights(folder, tmp_path / "whole"), phase
        good += 1
    figure(len(PHASES), good, f"phases, exit {code}", steps_lost=0)


@pytest.mark.faults(4, 5, control=True)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_unheard_the_signal_would_cost_steps(
    recipe_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    """Without the loop's own handler nothing is saved at the step that a signal comes in."""
    monkeypatch.setattr(
        loop_module, "stop_signals", lambda insist: contextlib.nullcontext(StopRequest())
    )
    signalled("warm-up", number, monkeypatch)
    path = str(recipe_file(train={"max_iters": 6, "checkpoint_interval": 3}))
    assert command(["train", path, "--run-dir", str(tmp_path / "run")]) == code
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.faults(5)
def test_a_second_ctrl_c_at_each_call_of_a_save(
    recipe_file: Callable[..., Path], tmp_path: Path, figure: Figure
) -> None:
    """It ends the process at once, in the middle of a save; the checkpoint before is whole."""
    path = str(recipe_file(train={"max_iters": 4, "checkpoint_interval": 2}))
    good = tried = 0
    original = checkpoint.save

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    for at in range(0, 20, 4):
        folder = tmp_path / str(at)

        def save(
            folder: Path, moment: CheckpointData, keep: CheckpointPolicy, at: int = at
        ) -> Path:
            with pytest.MonkeyPatch.context() as patch:
                Calls(patch, at if moment.state["step"] == 4 else 10_000, twice)
                return original(folder, moment, keep)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "save", save)
            assert command(["train", path, "--run-dir", str(folder), "--json"]) == 130
        tried += 1
        good += checkpoint.load_newest(folder / "checkpoints")[0].state["step"] in (2, 4)
    figure(tried, good, "exits at once, state valid")


@pytest.mark.faults(8)
@pytest.mark.parametrize("part", [*NEEDED, "torch's generator", "optimizer's tensors", "weight"])
def test_a_part_that_is_missing_is_refused_by_its_name(
    make_recipe: RecipeMaker, tmp_path: Path, part: str
) -> None:
    """Though the hashes agree: a resume without it would be another run."""
    recipe = make_recipe(train={"max_iters": 4, "checkpoint_interval": 2})
    train(make_recipe(train={"max_iters": 2, "lr_decay_iters": 4}), tmp_path / "run")
    path = checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].path
    from safetensors.torch import load_file, save_file

    file = {"torch's generator": "random", "optimizer's tensors": "optimizer", "weight": "model"}
    if part in file:
        tensors = load_file(path / f"{file[part]}.safetensors")
        del tensors[min(tensors)]
        save_file(tensors, path / f"{file[part]}.safetensors")
    else:
        state = json.loads((path / "state.json").read_text())
        del state[part]
        (path / "state.json").write_text(json.dumps(state))
    reseal(path)
    said = part if part in NEEDED or "generator" in part else "does not fit"
    with pytest.raises(StrawberryError, match=said):
        train(recipe, tmp_path / "run", resume=True)


@pytest.mark.faults(11)
def test_another_plugin_version_is_said(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A plugin, or torch, of another version than the run was begun with is named on resume."""
    train(make_recipe(train={"max_iters": 2}), tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    info = json.loads(file.read_text())
    info["plugins"]["strawberry"], info["torch"] = "0.0.1", "1.0"
    file.write_text(json.dumps(info))
    said: list[str] = []
    train(make_recipe(train={"max_iters": 2}), tmp_path / "run", resume=True, warn=said.append)
    (line,) = [line for line in said if "plugin strawberry 0.0.1 -> " in line]
    assert "torch 1.0 -> " in line


@pytest.mark.faults(11)
def test_a_changed_recipe_goes_on_in_a_fork(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Refused on --resume, it runs with --fork: from that step, with the log, the parent named."""
    settings = {"max_iters": 6, "lr_decay_iters": 6}
    train(make_recipe(train={**settings, "max_iters": 3}), tmp_path / "parent")
    before = {p.name: p.read_bytes() for p in (tmp_path / "parent").glob("*.*")}
    changed = make_recipe(train={**settings, "grad_clip": 0.5})
    with pytest.raises(StrawberryError, match=r"grad_clip: 1\.0 -> 0\.5(?s:.*)--fork"):
        train(changed, tmp_path / "parent", resume=True)
    train(changed, tmp_path / "fork", fork_of=tmp_path / "parent")
    info = json.loads((tmp_path / "fork" / "run.json").read_text())
    assert info["fork"]["step"] == 3
    assert info["fork"]["changes"] == ["train.grad_clip: 1.0 -> 0.5"]
    assert [row["step"] for row in rows(tmp_path / "fork") if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert {p.name: p.read_bytes() for p in (tmp_path / "parent").glob("*.*")} == before


@pytest.mark.faults(11, control=True)
@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free_adamw"])
def test_a_fork_without_a_change_is_the_run_itself(
    make_recipe: RecipeMaker, tmp_path: Path, optimizer: str
) -> None:
    """What differs in a fork is what was changed: with nothing changed it has the same bits.

    Killed right after it was forked, it goes on from there too.
    """
    settings = {"max_iters": 6, "lr_decay_iters": 6}
    recipe = make_recipe(optimizer=optimizer, train=settings)
    train(recipe, tmp_path / "whole")
    before = make_recipe(optimizer=optimizer, train={**settings, "max_iters": 3})
    train(before, tmp_path / "parent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "fit", lambda *arguments: raising(Killed())())
        with pytest.raises(Killed):
            train(recipe, tmp_path / "fork", fork_of=tmp_path / "parent")
    train(recipe, tmp_path / "fork", resume=True)
    assert same_weights(tmp_path / "fork", tmp_path / "whole")


FORMATS = sorted((Path(__file__).parents[1] / "golden").glob("run-format-*"))


@pytest.mark.faults(12)
@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_runs_of_every_format_load(folder: Path, figure: Figure) -> None:
    """A run folder that was written by an earlier version gives the logits that it gave then."""
    loaded = load_run(folder, device="cpu")
    expected = json.loads((folder / "logits.json").read_text())
    with torch.no_grad():
        logits = loaded.model(torch.arange(8)[None])[0, -1]
    assert torch.allclose(logits[:6], torch.tensor(expected), atol=1e-5)
    figure(1, 1, folder.name)


@pytest.mark.faults(12)
def test_a_format_of_the_future_is_named(tmp_path: Path) -> None:
    """It is refused with both numbers, and not taken for damage."""
    path = write(tmp_path, 1)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    reseal(path)
    with pytest.raises(StrawberryError, match=r"has format 99; this Strawberry reads 2"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.slow
@pytest.mark.faults(2)
def test_fifty_kills_over_five_recipes(tmp_path: Path, figure: Figure) -> None:
    """SIGKILL at random moments, ten for each recipe: the losses and weights of unbroken runs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills", "--out", str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    figure(result["kills"], result["identical"], "kills, identical", redone=result["redone"])
