"""A recipe that trains in a second, and plans over it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.ablate.plan import Plan
from strawberry.plugin import Plugins

PlanMaker = Callable[..., Plan]


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return Plugins.load(disabled=["fla"])


def small(text: Path) -> dict[str, Any]:
    """A recipe of six steps on a small model of bytes."""
    block = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
    return {
        "name": "small",
        "seed": 1,
        "model": {"vocab_size": 257, "block_size": 16, "n_embd": 16, "positional": "rope",
                  "stack": [{"repeat": 2, **block}]},
        "data": {"use": "text", "path": str(text)},
        "tokenizer": "bytes",
        "train": {"max_iters": 6, "batch_size": 2, "learning_rate": 1e-2, "warmup_iters": 2,
                  "eval_interval": 2, "eval_iters": 2, "log_interval": 1, "checkpoint_interval": 2,
                  "device": "cpu"},
    }  # fmt: skip


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """That recipe, and its text."""
    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small(tmp_path / "text.txt")))
    return path


@pytest.fixture
def make_plan(recipe_file: Path) -> PlanMaker:
    def make(**fields: Any) -> Plan:
        return Plan(recipe_file, **fields)

    return make
