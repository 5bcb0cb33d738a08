"""What the tests share: runs whose weights are random throughout, so that each of them counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hf_runs import MakeLoaded, MakeRecipe, MakeRun

import strawberry
from strawberry.generation import LoadedRun
from strawberry.plugin import Plugins
from strawberry.recipe import Recipe
from strawberry.training import begin

ROOT = Path(__file__).parents[3]
SMALL = ["model.vocab_size=263", "model.block_size=24", "model.n_embd=24", "tokenizer=bytes",
         "train.batch_size=2", "train.eval_iters=1", "train.max_iters=2", "train.warmup_iters=1",
         "train.log_interval=1"]  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> str:
    """An override: data of a few lines."""
    file = tmp_path / "text.txt"
    file.write_text("a strawberry is red, a blueberry is blue. " * 60)
    return f"data={{use: text, path: {file}}}"


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The plugins, loaded once."""
    return Plugins.load()


@pytest.fixture
def small(text: str, plugins: Plugins) -> MakeRecipe:
    """Makes a recipe of the repository small."""

    def make(name: str, *overrides: str) -> Recipe:
        file = ROOT / "recipes" / f"{name}.yaml"
        return strawberry.load_recipe(file, [*SMALL, text, *overrides], plugins=plugins)

    return make


@pytest.fixture
def loaded(small: MakeRecipe, tmp_path: Path) -> MakeLoaded:
    """Makes a run's model in which every parameter is random, gains and biases too."""

    def make(name: str, *overrides: str) -> LoadedRun:
        recipe = small(name, *overrides)
        model = strawberry.build(recipe).eval()
        noise = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
        return LoadedRun(tmp_path, recipe, model, 7, [])

    return make


@pytest.fixture
def make_run(loaded: MakeLoaded, tmp_path: Path) -> MakeRun:
    """Makes the folder of such a run."""

    def make(name: str, *overrides: str) -> Path:
        run = loaded(name, *overrides)
        return begin(run.recipe, tmp_path / f"run-{name}", run.model.state_dict())

    return make
