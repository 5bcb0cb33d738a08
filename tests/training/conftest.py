"""What the tests of training share: a small corpus, a cache of their own, and tiny recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from strawberry.recipe import load_recipe
from strawberry.recipe.spec import Recipe
from tests.support import PLUGINS

RecipeMaker = Callable[..., Recipe]

STACK: list[dict[str, Any]] = [
    {"attention": {"use": "mha", "n_head": 2}, "ffn": {"use": "swiglu", "n_ffn": 24}}
]
TRAIN = {
    "max_iters": 8,
    "batch_size": 2,
    "eval_interval": 4,
    "eval_iters": 2,
    "log_interval": 1,
    "checkpoint_interval": 0,
    "learning_rate": 3e-3,
    "warmup_iters": 2,
    "device": "cpu",
    "keep_memory": False,
}


@pytest.fixture(autouse=True)
def _quiet_machine(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that nothing else uses, and no default run folders in the checkout."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    torch.set_num_threads(1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of small documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(20):
        lines = [f"line {number * 7 + i}: the cat sat on mat {i % 5}\n" for i in range(30)]
        (folder / f"{number:02}.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def recipe_file(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the recipe of a tiny byte model; sections given replace or extend the defaults."""

    def write(name: str = "tiny", **sections: Any) -> Path:
        model = {
            "vocab_size": 257,
            "block_size": 16,
            "n_embd": 16,
            "dropout": 0.1,
            "positional": "rope",
            "stack": STACK,
            **sections.pop("model", {}),
        }
        recipe = {
            "name": name,
            "seed": 7,
            "model": model,
            "data": {"use": "text", "path": str(corpus)},
            "tokenizer": "bytes",
            "train": {**TRAIN, **sections.pop("train", {})},
            **sections,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    return write


@pytest.fixture
def make_recipe(recipe_file: Callable[..., Path]) -> RecipeMaker:
    """The same recipe, loaded."""

    def make(**sections: Any) -> Recipe:
        return load_recipe(recipe_file(**sections), plugins=PLUGINS)

    return make
