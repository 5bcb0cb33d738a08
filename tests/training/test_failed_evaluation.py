"""An evaluation that fails costs no training: what was trained is saved, and the run goes on."""

from pathlib import Path
from typing import Any

import pytest

from strawberry.generation import load_run
from strawberry.runs.memory import OutOfMemory
from strawberry.training import measuring, train
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import rows, same_weights


@pytest.mark.parametrize("failing", [1, 2], ids=["within", "last"])
def test_a_failed_evaluation_loses_no_step(
    failing: int, make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out in an evaluation leaves its step on disk; resumed, the run is as ever.

    The evaluation that failed is made up for first: its row is in the log as in a run without it.
    """
    original, calls = measuring.validate, 0

    def fail(*arguments: Any, **options: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise MemoryError
        return original(*arguments, **options)

    recipe = make_recipe(train={"max_iters": 8, "eval_interval": 4})
    train(recipe, tmp_path / "whole")
    monkeypatch.setattr(measuring, "validate", fail)
    with pytest.raises(OutOfMemory, match="--resume continues from it"):
        train(recipe, tmp_path / "parts")
    assert load_run(tmp_path / "parts").step == 4 * failing
    result = train(recipe, tmp_path / "parts", resume=True)
    assert rows(tmp_path / "whole")[-1] == {"step": 8, **result.metrics}
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert same_weights(tmp_path / "parts", tmp_path / "whole")


def test_an_evaluation_is_made_once(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run that is resumed does not evaluate again."""
    recipe = make_recipe(train={"max_iters": 2})
    train(recipe, tmp_path / "run")
    before = rows(tmp_path / "run")
    monkeypatch.delattr(measuring, "validate")
    train(recipe, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == before
