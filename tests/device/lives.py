"""What a recipe goes through on a device: training, evaluation, resuming, generation, a trial."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from strawberry.ablate import worker
from strawberry.ablate.process import write_request
from strawberry.ablate.trials import Trial
from strawberry.check.pretend import NAME, Stall, Stalls, accelerator
from strawberry.components.optimizer import muon
from strawberry.contracts import Tracker
from strawberry.generation import Sampling, load_run
from strawberry.generation.decode import sample_batch
from strawberry.recipe.spec import Recipe
from strawberry.training import evaluate, measuring, train
from strawberry.training.guard import Guard
from strawberry.training.loop import log
from strawberry.training.recent import RecentSums
from strawberry.training.session import Session
from tests.support import recipe_of

ROOT = Path(__file__).parents[2]
RECIPES = [
    *sorted((ROOT / "recipes").glob("*.yaml")),
    *sorted((ROOT / "recipes/gpu").glob("*.yaml")),
    ROOT / "recipes/original.json",
    *sorted((ROOT / "plugins").glob("*/recipes/*.yaml")),
]
AT_MOST = {
    "vocab_size": 257,
    "block_size": 32,
    "n_embd": 64,
    "n_head": 8,
    "n_kv_head": 2,
    "n_qkv": 128,
    "n_ffn": 96,
    "rank": 16,
    "repeat": 4,
}
"""Sizes of a small model; what a recipe has less of stays."""
TRAIN = {
    "max_iters": 3,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "warmup_iters": 1,
    "log_interval": 100,
    "eval_interval": 0,
    "eval_iters": 1,
    "checkpoint_interval": 2,
    "compile": False,
}
STEPS = TRAIN["max_iters"] - 1
"""Those whose stalls are taken down: what the first one makes may be kept."""
LOGGED = tuple(
    function.__qualname__
    for function in (
        log,
        Guard.check,
        Guard.save,
        measuring.evaluate,
        RecentSums.pause,
        Session.tell,
    )
)
"""What happens at a log line, an evaluation or a checkpoint, and not in each step."""


@contextlib.contextmanager
def as_elsewhere() -> Iterator[None]:
    """Within it, what chooses between a CPU's way and that of all other devices takes the other.

    So that a run on the CPU is the one that a run on another device is compared with.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "is_cpu", property(lambda _: False), raising=False)
        patch.setattr(muon, "precision", lambda _: torch.bfloat16)
        yield


def small(recipe: Recipe, text: Path, **train_section: Any) -> Recipe:
    """A recipe at sizes for a test, over a text of bytes, with three steps of two micro-batches."""
    data = _capped(yaml.safe_load(recipe.to_yaml()))
    if recipe.data.use.rpartition("/")[2] != "synthetic":
        data |= {"data": {"use": "text", "path": str(text)}, "tokenizer": "bytes"}
    kept = {k: v for k, v in data["train"].items() if k in ("dtype", "document_mask", "grad_clip")}
    data |= {"seed": 3, "trackers": []}
    return recipe_of(
        data["model"],
        **{key: value for key, value in data.items() if key not in ("name", "model", "train")},
        train={**kept, "learning_rate": 1e-3, **TRAIN, **train_section},
    )


def _capped(value: Any) -> Any:
    if isinstance(value, list):
        return [_capped(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: _cut(key, item) if key in AT_MOST and isinstance(item, int) else _capped(item)
        for key, item in value.items()
    }


def _cut(key: str, size: int) -> int:
    """A size for a test; heads are a power of two, which divides the width."""
    size = min(size, AT_MOST[key])
    return 1 << (size.bit_length() - 1) if key == "n_head" else size


@dataclass
class Life:
    """What a recipe came to: losses, metrics, and what stalled the device.

    Attributes:
        losses: of the rows of its log.
        metrics: of its evaluation.
        step: stalls of the second step and the third, but for what they log at the end.
    """

    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    step: list[Stall] = field(default_factory=list)


class _Begin(Tracker):
    """Forgets what stalled the first step."""

    def __init__(self, stalls: Stalls) -> None:
        self.stalls = stalls

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        if step == 1:
            self.stalls.take()


def live(recipe: Recipe, folder: Path, stalls: Stalls | None = None) -> Life:
    """Train, resume, evaluate and generate; raises AssertionError where the resumed run differs."""
    life, device = Life(), recipe.train.device
    run = train(recipe, folder, trackers=[] if stalls is None else [_Begin(stalls)])
    if stalls is not None:
        life.step = [stall for stall in stalls.take() if not stall.within(*LOGGED)]
    life.losses, life.metrics = _losses(folder), run.metrics
    _resume(recipe, folder, life)
    assert evaluate(folder, device=device)["val_loss"] == run.metrics["val_loss"]
    return life


def _losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def _resume(recipe: Recipe, folder: Path, life: Life) -> None:
    """Lose the last checkpoint, and come to the same again."""
    shutil.rmtree(folder / "checkpoints" / "step-00000003")
    again = train(recipe, folder, resume=True)
    assert (_losses(folder), again.metrics) == (life.losses, life.metrics)


def speak(
    folder: Path, device: str, stalls: Stalls | None = None
) -> tuple[list[int], list[list[Stall]]]:
    """Eight ids with a cache, greedily, and what stalled the device for each but the first two."""
    model = load_run(folder, device=device).model
    prompts, generators = [list(b"It is")], [torch.Generator()]
    ids, tokens = [], []
    for step in sample_batch(model, prompts, 8, Sampling(0.0), generators):
        ids += [token for _, token in step]
        if stalls is not None:
            tokens.append(stalls.take())
    return ids, tokens[2:]


def trial(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What a trial of an ablation comes to, in this process."""
    job = Trial("cell", "main", recipe.seed, "", recipe, "key", folder).job()
    write_request(folder, job.request)
    worker.main(folder)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished", result
    return result


__all__ = [
    "NAME",
    "RECIPES",
    "STEPS",
    "Life",
    "accelerator",
    "as_elsewhere",
    "live",
    "small",
    "speak",
    "trial",
]
