"""The speedruns' recipes, with data as their users have it, on a CPU; and their ablations."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import strawberry
from strawberry.ablate.cells import cells
from strawberry.ablate.planfile import make_plan
from strawberry.model.accounting import account
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.training import train

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = RECIPES / "gpu/speedrun.yaml"


def write_shard(path: Path, ids: np.ndarray) -> None:
    """A file as modded-nanogpt has it: 256 int32 of header, then the ids in two bytes each."""
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(ids)
    path.write_bytes(header.tobytes() + ids.astype("<u2").tobytes())


def test_it_is_of_124m_and_looks_at_the_tokens_that_all_look_at():
    """As GPT-2 small, 524,288 tokens a step, and 10,485,760 tokens in an evaluation."""
    recipe = load_recipe(RECIPE)
    batch = recipe.train.batch_size * recipe.model.block_size

    assert 120e6 < account(recipe).total_parameters < 128e6
    assert batch * recipe.train.gradient_accumulation_steps == 524_288
    assert batch * recipe.train.eval_iters == 10_485_760


def test_it_trains_on_fineweb_shards(tmp_path: Path):
    """Where a user says the shards are, it reads them; small, it learns what they repeat."""
    for name, seed in (("fineweb_train_000001", 1), ("fineweb_val_000000", 2)):
        ids = np.random.default_rng(seed).integers(0, 50, 40) % 7
        write_shard(tmp_path / f"{name}.bin", np.tile(np.append(ids, 50256), 100))
    recipe = strawberry.load_recipe(
        RECIPE,
        [
            f"data.path={tmp_path}",
            "model.n_embd=32",
            "model.block_size=64",
            "model.stack[0].repeat=2",
            "model.stack[0].attention.n_head=2",
            "model.stack[0].ffn.n_ffn=64",
            "train.max_iters=12",
            "train.batch_size=2",
            "train.gradient_accumulation_steps=2",
            "train.eval_iters=2",
            "train.eval_interval=0",
            "train.log_interval=1",
            "train.dtype=float32",
            "train.device=cpu",
        ],
    )
    result = train(recipe, tmp_path / "run")

    assert result.steps == 12
    assert result.metrics["val_loss"] < np.log(50304) - 1


CHARACTERS = RECIPES / "speedrun/char.yaml"


def test_characters_train_on_a_text_that_the_user_has(tmp_path: Path):
    """A byte is a token, validation is whole, and a few steps learn what little there is."""
    (tmp_path / "text.txt").write_text("First Citizen:\nBefore we proceed, hear me.\n\n" * 200)
    recipe = strawberry.load_recipe(
        CHARACTERS,
        [f"data.path={tmp_path / 'text.txt'}", "train.max_iters=4", "train.eval_interval=0"],
    )
    run = train(recipe, tmp_path / "run")

    assert recipe.train.batch_size * recipe.train.eval_iters * recipe.model.block_size > 111_540
    assert run.metrics["val_loss"] < 5.0
    assert run.metrics["bits_per_byte"] == pytest.approx(run.metrics["val_loss"] / math.log(2))


@pytest.mark.parametrize("track", ["char", "code"])
def test_the_ablation_compares_the_record(track: str, plugins: Plugins):
    """The cell that the plan writes out by itself is the recipe of the record."""
    _, made = cells(make_plan(RECIPES / f"ablations/speedrun_{track}.yaml", {}), plugins)
    record = load_recipe(RECIPES / f"speedrun/{track}.yaml", ["train.threads=1"])
    cell = next(cell.recipe for cell in made if cell.name == track)

    assert cell is not None
    assert replace(cell, name=record.name, origin=record.origin) == record
