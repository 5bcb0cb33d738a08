from pathlib import Path

import pytest
import torch

from strawberry.recipe import load_recipe
from strawberry.train import checkpoint, train
from strawberry.train.run import RunFolder

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = [*sorted(RECIPES.glob("*.yaml")), *RECIPES.glob("seed.json")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_trains_and_resumes_bit_for_bit(file: Path, corpus: Path, tmp_path: Path) -> None:
    """Every recipe that comes with the project, on short windows and with dropout on."""
    overrides = [
        f"data={{use: text, path: '{corpus}'}}", "tokenizer=bytes", "model.block_size=32",
        "model.dropout=0.1", "train.batch_size=2", "train.gradient_accumulation_steps=1",
        "train.eval_interval=2", "train.eval_iters=1", "train.log_interval=1",
        "train.checkpoint_interval=2", "train.keep_checkpoints=2", "train.max_iters=4",
        "train.warmup_iters=1", "train.lr_decay_iters=4", "train.keep_memory=false",
        "train.device=cpu", "seed=3",
    ]  # fmt: skip
    recipe = load_recipe(file, overrides)
    result = train(recipe, tmp_path / "run")
    assert result.steps == 4
    first, _ = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    rows = RunFolder(tmp_path / "run").metrics()
    (first.path / "manifest.json").write_text("{}")  # so that it resumes from step 2
    train(recipe, tmp_path / "run", resume=True)
    again, _ = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    for one, other in zip(rows, RunFolder(tmp_path / "run").metrics(), strict=True):
        assert {**one, "tokens_per_second": 0} == {**other, "tokens_per_second": 0}
    assert again.state["step"] == 4
    assert all(torch.equal(first.model[name], again.model[name]) for name in first.model)
    assert all(torch.equal(first.optimizer[n], again.optimizer[n]) for n in first.optimizer)
