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


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """Six steps on a small model of bytes."""
    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
    block = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
    recipe = {
        "name": "small",
        "seed": 1,
        "model": {"vocab_size": 257, "block_size": 16, "n_embd": 16, "positional": "rope",
                  "stack": [{"repeat": 2, **block}]},
        "data": {"use": "text", "path": str(tmp_path / "text.txt")},
        "tokenizer": "bytes",
        "train": {"max_iters": 6, "batch_size": 2, "learning_rate": 1e-2, "warmup_iters": 2,
                  "eval_interval": 2, "eval_iters": 2, "log_interval": 1, "checkpoint_interval": 2,
                  "device": "cpu"},
    }  # fmt: skip
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def make_plan(recipe_file: Path) -> PlanMaker:
    def make(**fields: Any) -> Plan:
        return Plan(recipe_file, **fields)

    return make
