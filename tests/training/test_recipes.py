"""Every recipe that comes along trains, resumes, and generates."""

import json
from pathlib import Path

import pytest
import torch

import strawberry
from strawberry.generation import Sampling, load_run, sample_ids
from strawberry.runs import checkpoint
from strawberry.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
RECIPES = [
    *sorted((ROOT / "recipes").glob("*.yaml")),
    ROOT / "recipes/original.json",
    *sorted((ROOT / "plugins").glob("*/recipes/*.yaml")),
]
SHORT = [
    "seed=3",
    "data={use: stdlib, max_bytes: 400000}",
    "tokenizer=bpe",
    "model.vocab_size=1024",
    "model.block_size=64",
    "train.batch_size=4",
    "train.warmup_iters=2",
    "train.lr_decay_iters=20",
    "train.learning_rate=3e-3",
    "train.eval_iters=1",
    "train.log_interval=1",
    "train.eval_interval=0",
    "train.checkpoint_interval=4",
]
STEPS = 20


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module", params=RECIPES, ids=lambda path: path.name)
def run(request, tmp_path_factory):
    """A run, and its recipe's path."""
    torch.set_num_threads(1)  # this is made before what sets it for each test
    folder = tmp_path_factory.mktemp("run") / "run"
    recipe = strawberry.load_recipe(request.param, [*SHORT, f"train.max_iters={STEPS}"])
    strawberry.train(recipe, folder)
    return request.param, folder


def test_it_learns(run):
    """The loss falls within a few steps, and the referee accuses it of nothing undeclared."""
    _, folder = run
    found = losses(folder)
    assert RunFolder(folder).referee_file.exists()
    assert RunFolder(folder).breaches() == []

    assert len(found) == STEPS
    assert sum(found[-5:]) < sum(found[:5]) - 0.5


OFTEN = {"air", "deepseek", "hybrid", "mor_token_choice", "original"}
"""Recipes that resume in the default suite, with most components between them."""


@pytest.mark.faults(1)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_resumes_exactly(run, every, tmp_path):
    """Stopped after 7 steps and resumed, it has every number and bit of an unbroken run."""
    path, whole = run
    if not every and path.stem not in OFTEN:
        pytest.skip("resumed by `pytest -m slow`")
    folder = tmp_path / "resumed"
    strawberry.train(strawberry.load_recipe(path, [*SHORT, "train.max_iters=7"]), folder)
    recipe = strawberry.load_recipe(path, [*SHORT, f"train.max_iters={STEPS}"])
    strawberry.train(recipe, folder, resume=True)

    assert losses(folder) == losses(whole)
    one, other = (checkpoint.load_newest(path / "checkpoints")[0] for path in (folder, whole))
    assert one.state["optimizer"] == other.state["optimizer"]
    for a, b in ((one.model, other.model), (one.optimizer, other.optimizer)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def test_greedy_generation_is_the_argmax(run):
    """Greedy sampling with a cache gives the argmax of the forward pass without one."""
    _, folder = run
    model = load_run(folder).model
    ids = torch.tensor([[5, 17, 300, 2]])
    steps = list(sample_ids(model, ids, 12, Sampling(temperature=0), torch.Generator()))
    for step in steps:
        logits = model(ids)[:, -1]
        chosen = logits.argmax(-1)
        if not torch.equal(chosen, step):  # a tie up to rounding is no difference
            torch.testing.assert_close(logits[0, step], logits[0, chosen], rtol=1e-5, atol=1e-5)
        ids = torch.cat([ids, step[:, None]], dim=1)
