"""Plans over a recipe of 40 steps, and a plugin file that counts every step that is ever done."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strawberry.ablate import Plan
from strawberry.plugin import Plugins
from tests.ablate.conftest import recipe_file  # noqa: F401 (a fixture)
from tests.ablate.test_sweep import DYING

COUNTS = """
    import json, os, time
    from pathlib import Path
    from strawberry.plugin import hookimpl

    @hookimpl
    def strawberry_step_done(run, step):
        trial = run.parent.name.partition(".attempt-")[0]
        with (Path(__file__).parent / "steps.txt").open("a") as file:
            file.write(f"{trial} {step} {os.environ.get('CUDA_VISIBLE_DEVICES', '')!r}\\n")
        time.sleep(0.05)
"""
STEPS = 40


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """The plugin file that counts, and makes a step last 50 ms."""
    path = tmp_path / "counts.py"
    path.write_text(textwrap.dedent(COUNTS))
    return path


@pytest.fixture
def plugins(counts: Path) -> Plugins:
    return Plugins.load(files=[DYING, counts], disabled=["fla"])


@pytest.fixture
def make_plan(recipe_file: Path) -> Callable[..., Plan]:  # noqa: F811 (it is that fixture)
    def make(**fields: Any) -> Plan:
        overrides = (f"train.max_iters={STEPS}", "train.checkpoint_interval=5",
                     "train.keep_checkpoints=100", "train.eval_interval=20")  # fmt: skip
        return Plan(recipe_file, **{"overrides": overrides, **fields})

    return make
