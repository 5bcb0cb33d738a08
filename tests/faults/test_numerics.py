"""Section C: numbers, data and memory."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from strawberry.data.packed import PackedDataset
from strawberry.errors import PluginError, StrawberryError
from strawberry.model.language_model import LanguageModel
from strawberry.runs import checkpoint
from strawberry.runs.folder import RunFolder
from strawberry.runs.memory import OutOfMemory
from strawberry.training import (
    Diverged,
    engine as engine_module,
    loop as loop_module,
    outline as outline_module,
    recent as recent_module,
    session as session_module,
    spikes as spikes_module,
    train,
)
from strawberry.training.batches import Batches
from strawberry.training.guard import BACK_OFFS, IN_A_ROW
from strawberry.training.optimizers import Optimizers
from strawberry.training.spikes import SpikeDetector
from tests.faults.conftest import Figure
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import rows, same_weights

BAD = [math.nan, math.inf, -math.inf]
SETTINGS = {"max_iters": 8, "checkpoint_interval": 2, "keep_checkpoints": 9}


def of_numbers(said: list[str]) -> Callable[[str], None]:
    """Notes what is said, but for what is said of this corpus: it repeats itself."""

    def note(line: str) -> None:
        if "validation text" not in line:
            said.append(line)

    return note


def poison(patch: pytest.MonkeyPatch, where: str, value: float, steps: tuple[int, ...]) -> None:
    """Let a number of a training step be `value`, the first time that the step is reached."""
    original, original_step = LanguageModel.loss, Optimizers.step
    done: set[int] = set()
    seen = {"step": 0}
    original_batch = Batches.train

    def batch(batches: Batches, number: int) -> Any:
        seen["step"] = number + 1
        return original_batch(batches, number)

    def now() -> bool:
        if seen["step"] not in steps or seen["step"] in done:
            return False
        done.add(seen["step"])
        return True

    def loss(model: LanguageModel, x: torch.Tensor, y: torch.Tensor, **options: Any) -> Any:
        if not model.training or where not in ("loss", "gradient", "input", "weight") or not now():
            return original(model, x, y, **options)
        if where == "weight":
            with torch.no_grad():
                next(model.parameters())[:3].fill_(value)
        if where == "input":
            layer = model.get_submodule("embedding")
            handle = layer.register_forward_hook(lambda *a: a[2].clone().fill_(value))
            try:
                return original(model, x, y, **options)
            finally:
                handle.remove()
        result = original(model, x, y, **options)
        if where == "loss":
            return type(result)(result.total * value, result.cross_entropy * value)
        if where == "gradient":
            result.total.register_hook(lambda gradient: gradient * value)
        return result

    def step(optimizers: Any, number: int) -> float:
        if where == "optimizer" and now():
            for _, made in optimizers.parts:
                for state in made.state.values():
                    name = "exp_avg" if "exp_avg" in state else "momentum_buffer"
                    state[name].fill_(value)
        return original_step(optimizers, number)

    patch.setattr(Batches, "train", batch)
    patch.setattr(LanguageModel, "loss", loss)
    patch.setattr(Optimizers, "step", step)


def saved_finite(folder: Path) -> bool:
    """Whether every checkpoint that was kept is whole and finite."""
    for path in checkpoint.newest(folder / "checkpoints"):
        found = checkpoint.load(path)
        if not all(torch.isfinite(t).all() for t in (*found.model.values(),
                                                     *found.optimizer.values())):  # fmt: skip
            return False
    return True


@pytest.mark.faults(26)
def test_stop_backs_out_before_anything_is_spoilt(
    make_recipe: RecipeMaker, tmp_path: Path, figure: Figure
) -> None:
    """In input, weight or moments: the run ends, and its checkpoints are good."""
    tried = good = 0
    for where in ("input", "weight", "optimizer"):
        for value in BAD:
            folder = tmp_path / f"{where}{value}"
            with pytest.MonkeyPatch.context() as patch:
                poison(patch, where, value, (5,))
                with pytest.raises(Diverged, match=r"step [56]"):
                    train(make_recipe(train=SETTINGS), folder)
            tried += 1
            good += saved_finite(folder)
            assert checkpoint.load_newest(folder / "checkpoints")[0].state["step"] == 4
    figure(tried, good, "poisons stopped")


@pytest.mark.faults(26)
@pytest.mark.parametrize("where", ["loss", "gradient", "input"])
def test_skip_leaves_the_step_out(make_recipe: RecipeMaker, tmp_path: Path, where: str) -> None:
    """The run ends as one whose optimizer was not stepped there; the row counts the step."""
    recipe = make_recipe(train={**SETTINGS, "on_nonfinite": "skip", "log_interval": 2})
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, where, math.nan, (5,))
        train(recipe, tmp_path / "run", warn=of_numbers(said))
    original = Optimizers.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimizers, "step",
                      lambda self, at: 0.0 if at == 4 else original(self, at))  # fmt: skip
        train(recipe, tmp_path / "oracle")
    assert same_weights(tmp_path / "run", tmp_path / "oracle")
    assert said == ["step 5 is not finite and is skipped"]
    found = {row["step"]: row.get("skipped") for row in rows(tmp_path / "run") if "loss" in row}
    assert found == {1: None, 2: None, 4: None, 6: 1, 8: None}
    assert all(math.isfinite(v) for row in rows(tmp_path / "run") for v in row.values())


@pytest.mark.faults(26)
def test_skip_puts_buffers_back(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """What a forward pass counts for balancing is as if the skipped step had not been."""
    ffn = {"use": "moe", "experts": 2, "active": 1, "n_ffn": 8, "bias_rate": 0.1}
    model = {"stack": [{"attention": {"use": "mha", "n_head": 2}, "ffn": ffn}]}
    recipe = make_recipe(model=model, train={**SETTINGS, "on_nonfinite": "skip"})
    seen: list[dict[str, torch.Tensor]] = []
    original = loop_module.Guard.judge

    def judge(guard: Any) -> Any:
        verdict = original(guard)
        if guard.session.step in (3, 4):
            buffers = guard.session.model.named_buffers()
            seen.append({name: buffer.clone() for name, buffer in buffers if "load" in name})
        return verdict

    with pytest.MonkeyPatch.context() as patch:
        poison(patch, "loss", math.nan, (5,))
        patch.setattr(loop_module.Guard, "judge", judge)
        train(recipe, tmp_path / "run")
    taken, skipped = seen
    assert taken
    assert all(load.sum() > 0 for load in taken.values())
    assert all(load.sum() == 0 for load in skipped.values())


@pytest.mark.faults(26)
@pytest.mark.parametrize("where", ["gradient", "weight", "optimizer"])
def test_back_off_goes_on_at_half_the_rate(
    make_recipe: RecipeMaker, tmp_path: Path, where: str
) -> None:
    """From the checkpoint before, weights and moments mended; the log has every step once."""
    recipe = make_recipe(train={**SETTINGS, "on_nonfinite": "back_off"})
    train(recipe, tmp_path / "whole")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, where, math.nan, (5,))
        train(recipe, tmp_path / "run", warn=of_numbers(said))
    assert saved_finite(tmp_path / "run")
    assert len(said) == 1
    assert "returning to step 4, with the learning rate scaled by 0.5" in said[0]
    one, other = ([row for row in rows(tmp_path / name) if "loss" in row]
                  for name in ("run", "whole"))  # fmt: skip
    assert one[:4] == other[:4]
    assert [row["step"] for row in one] == list(range(1, 9))
    assert [row["lr"] for row in one[4:]] == [row["lr"] / 2 for row in other[4:]]


@pytest.mark.faults(26)
@pytest.mark.parametrize("stop", [4, 6])
def test_back_off_is_the_same_after_a_stop(
    make_recipe: RecipeMaker, tmp_path: Path, stop: int
) -> None:
    """Stopped before or after it went back, a resumed run comes to the same weights."""
    recipe = make_recipe(train={**SETTINGS, "on_nonfinite": "back_off"})
    from tests.faults.test_resume import stopped_at

    with pytest.MonkeyPatch.context() as patch:
        poison(patch, "gradient", math.inf, (5,))
        train(recipe, tmp_path / "whole")
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, "gradient", math.inf, (5,))
        with pytest.MonkeyPatch.context() as inner:
            stopped_at(inner, stop)
            with pytest.raises(loop_module.Interrupted):
                train(recipe, folder)
        train(recipe, folder, resume=True)
    assert rows(folder) == rows(tmp_path / "whole")
    assert same_weights(folder, tmp_path / "whole")


@pytest.mark.faults(26)
@pytest.mark.parametrize(("policy", "tries"), [("skip", IN_A_ROW), ("back_off", BACK_OFFS + 1)])
def test_what_does_not_mend_ends_the_run(
    make_recipe: RecipeMaker, tmp_path: Path, policy: str, tries: int
) -> None:
    """A batch that is never finite is met so often and no more; the last checkpoint is good."""
    recipe = make_recipe(train={**SETTINGS, "max_iters": 30, "on_nonfinite": policy})
    original, train_batch = LanguageModel.loss, Batches.train
    met: list[int] = []
    current = {"number": 0}

    def batch(batches: Batches, number: int) -> Any:
        current["number"] = number
        return train_batch(batches, number)

    def loss(model: LanguageModel, x: torch.Tensor, y: torch.Tensor, **options: Any) -> Any:
        result, number = original(model, x, y, **options), current["number"]
        if not model.training or number < 4 or (policy == "back_off" and number > 4):
            return result
        met.append(number)
        return type(result)(result.total * math.nan, result.cross_entropy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "loss", loss)
        patch.setattr(Batches, "train", batch)
        with pytest.raises(Diverged):
            train(recipe, tmp_path / "run")
    assert len(met) == tries
    assert saved_finite(tmp_path / "run")


@pytest.mark.faults(26)
@pytest.mark.parametrize("policy", ["stop", "skip", "back_off"])
def test_the_batch_is_kept_for_study(make_recipe: RecipeMaker, tmp_path: Path, policy: str) -> None:
    """Its ids and targets, of each micro-batch, and what was spoilt; readable without us."""
    settings = {**SETTINGS, "gradient_accumulation_steps": 2, "on_nonfinite": policy}
    recipe = make_recipe(train=settings)
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, "loss", math.inf, (3,))
        try:
            train(recipe, tmp_path / "run")
        except Diverged:
            assert policy == "stop"
    kept = tmp_path / "run" / "nonfinite"
    assert sorted(p.name for p in kept.iterdir()) == ["step-00000003.json",
                                                      "step-00000003.safetensors"]  # fmt: skip
    report = json.loads((kept / "step-00000003.json").read_text())
    assert report["rows"] == [[8, 9], [10, 11]]
    assert report["weights"] == []
    from strawberry.data import open_dataset

    batches = Batches(open_dataset(recipe), recipe, torch.device("cpu"))
    tensors = load_file(kept / "step-00000003.safetensors")
    for part, (x, y) in enumerate(batches.train(2)):
        assert torch.equal(tensors[f"x{part}"], x)
        assert torch.equal(tensors[f"y{part}"], y)


@pytest.mark.faults(26, control=True)
def test_unwatched_a_nan_would_be_saved(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the checks off, the run ends in peace and its checkpoint is poisoned."""
    monkeypatch.setattr(recent_module.RecentSums, "finite", lambda self: True)
    monkeypatch.setattr(session_module, "all_finite", lambda tensors: True)
    poison(monkeypatch, "loss", math.nan, (5,))
    train(make_recipe(train=SETTINGS), tmp_path / "run")
    assert not saved_finite(tmp_path / "run")


def scale_loss(patch: pytest.MonkeyPatch, at: int, by: float) -> None:
    """Multiply the loss of a training step."""
    original, calls = LanguageModel.loss, iter(range(1, 10**6))

    def loss(model: LanguageModel, x: torch.Tensor, y: torch.Tensor, **options: Any) -> Any:
        result = original(model, x, y, **options)
        if not model.training or next(calls) != at:
            return result
        return type(result)(result.total * by, result.cross_entropy * by)

    patch.setattr(LanguageModel, "loss", loss)


@pytest.mark.faults(27)
def test_a_spike_is_a_field_and_a_line(
    make_recipe: RecipeMaker, tmp_path: Path, figure: Figure
) -> None:
    """One step's loss times 1e4, or times 2, is told at its row, and no other row is."""
    told = 0
    for by in (1e4, 2.0):
        said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            scale_loss(patch, 9, by)
            train(make_recipe(train={"max_iters": 12}), tmp_path / str(by), warn=of_numbers(said))
        spikes = {r["step"]: r for r in rows(tmp_path / str(by)) if "loss_spike" in r}
        told += list(spikes) == [9] and len(said) == 1
        before = spikes[9]["loss"] - spikes[9]["loss_spike"]
        assert spikes[9]["loss"] / before == pytest.approx(by, rel=0.3)
    figure(2, told, "spikes told")


@pytest.mark.faults(27)
def test_a_resumed_run_knows_the_rows_before(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A spike right after a resume is told as in a run that never stopped."""
    settings = {"max_iters": 12, "lr_decay_iters": 12}
    with pytest.MonkeyPatch.context() as patch:
        scale_loss(patch, 9, 1e4)
        train(make_recipe(train=settings), tmp_path / "whole")
    train(make_recipe(train={**settings, "max_iters": 8}), tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        scale_loss(patch, 1, 1e4)
        train(make_recipe(train=settings), tmp_path / "run", resume=True)
    assert [r for r in rows(tmp_path / "run") if "loss" in r] == [
        r for r in rows(tmp_path / "whole") if "loss" in r
    ]


@pytest.mark.faults(27, control=True)
def test_without_a_threshold_no_spike_is_told(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same spike passes unsaid where no deviation is large enough; plain noise is no spike."""
    chance = random.Random(27)
    noise = SpikeDetector()
    told = [noise.observe(chance.gauss(3, 0.1)) for _ in range(4000)]
    assert sum(spike is not None for spike in told) <= 4
    monkeypatch.setattr(spikes_module, "DEVIATIONS", math.inf)
    scale_loss(monkeypatch, 9, 1e4)
    said: list[str] = []
    train(make_recipe(train={"max_iters": 12}), tmp_path / "run", warn=of_numbers(said))
    assert said == []


@pytest.mark.faults(28)
@pytest.mark.parametrize("wrong", ["raises", "too large", "negative"])
def test_a_data_set_that_fails_is_named(
    make_recipe: RecipeMaker, tmp_path: Path, wrong: str
) -> None:
    """With its batch, and no traceback; the run goes on from its checkpoint once it is mended."""
    settings = {"max_iters": 6, "checkpoint_interval": 2}
    recipe = make_recipe(train=settings)
    train(recipe, tmp_path / "whole")
    original = PackedDataset.rows

    def rows(self: PackedDataset, split: Any, first: int, count: int, **sizes: Any) -> Any:
        x, y = original(self, split, first, count, **sizes)
        if split == "train" and first == 8:
            if wrong == "raises":
                raise KeyError("shard 7")
            x = np.full_like(x, 300 if wrong == "too large" else -5)
        return x, y

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedDataset, "rows", rows)
        with pytest.raises(
            PluginError, match=r"data strawberry/text: rows 8 to 9 of train: "
        ) as told:
            train(recipe, tmp_path / "run")
    assert {"raises": "shard 7", "too large": "300", "negative": "-5"}[wrong] in str(told.value)
    train(recipe, tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def exhaust(error: BaseException, patch: pytest.MonkeyPatch, at: int = 5) -> None:
    """Let a step run out of memory."""
    original = Optimizers.step

    def step(optimizers: Any, number: int) -> float:
        if number + 1 == at:
            raise error
        return original(optimizers, number)

    patch.setattr(Optimizers, "step", step)


@pytest.mark.faults(30)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_out_of_memory_says_what_to_change(
    make_recipe: RecipeMaker, tmp_path: Path, error: BaseException
) -> None:
    """The fields with their values; the last checkpoint stays, and the run goes on from it."""
    settings = {"max_iters": 6, "checkpoint_interval": 2}
    with pytest.MonkeyPatch.context() as patch:
        exhaust(error, patch)
        with pytest.raises(OutOfMemory, match=r"train\.batch_size \(now 2\)") as told:
            train(make_recipe(train=settings), tmp_path / "run")
    assert "gradient_accumulation_steps (now 1)" in str(told.value)
    assert "model.block_size (now 16)" in str(told.value)
    assert "--resume" in str(told.value)
    assert told.value.exit_code == 2
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].state["step"] == 4
    train(make_recipe(train=settings), tmp_path / "run", resume=True)


@pytest.mark.faults(30, control=True)
def test_other_errors_are_not_taken_for_it(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A bug stays a bug, with its own exception."""
    with pytest.MonkeyPatch.context() as patch:
        exhaust(RuntimeError("size mismatch"), patch)
        with pytest.raises(RuntimeError, match="size mismatch"):
            train(make_recipe(), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.faults(30)
def test_a_process_that_really_has_no_memory(
    recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Under a limit of address space the command ends with the advice, and no traceback."""
    recipe = recipe_file(
        model={"block_size": 512, "n_embd": 512, "vocab_size": 20_000},
        train={"batch_size": 64, "max_iters": 2},
        data={"use": "stdlib", "max_bytes": 300_000},
    )
    code = (
        "import resource, torch; from pathlib import Path; from strawberry.cli import main; "
        "now = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30),) * 2); main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "train", str(recipe), "--run-dir", "r"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "out of memory" in done.stderr
    assert "train.batch_size (now 64)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.faults(31)
def test_an_absurd_model_is_refused_before_it_is_allocated(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Terabytes of weights: one line with the bytes, and memory that was not taken."""
    import resource

    recipe = make_recipe(model={"vocab_size": 1 << 30, "n_embd": 1 << 20})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StrawberryError, match=r"weights and gradients need .* TiB, but cpu has"):
        train(recipe, tmp_path / "run")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert not (tmp_path / "run").exists()


@pytest.mark.faults(31, control=True)
def test_unasked_it_would_be_allocated(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check the model is built: here it stops where the builder would allocate."""
    built: list[str] = []
    original = outline_module.build

    def build(recipe: Any, device: Any = "cpu") -> Any:
        built.append(str(device))
        if len(built) == 2:
            raise MemoryError
        return original(recipe, device)

    monkeypatch.setattr(outline_module, "build", build)
    monkeypatch.setattr(engine_module, "build", build)
    monkeypatch.setattr(loop_module, "check_memory", lambda *arguments: None)
    with pytest.raises(OutOfMemory):
        train(make_recipe(model={"vocab_size": 1 << 20, "n_embd": 1 << 20}), tmp_path / "run")
    assert built == ["meta", "cpu"]
    assert RunFolder(tmp_path / "run").exists is False
