"""What the constructor of a component beside the model refuses is told at its place."""

from pathlib import Path

import pytest

from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.training import train
from tests.training.conftest import RecipeMaker

PLUGIN = """
from strawberry import contracts
from strawberry.errors import FieldError
from strawberry.plugin import hookimpl

class Picky:
    def __init__(self, site, *, size: int = 1) -> None:
        if size == 2:
            raise FieldError("size", "must not be two")
        raise ValueError("not today")

class Optimizer(Picky, contracts.OptimizerSource):
    def make(self, infos, *, lr, device): ...

class Schedule(Picky, contracts.Schedule):
    def __call__(self, step): ...

class Data(Picky, contracts.DataSource):
    def open(self): ...

class Tokenizer(Picky, contracts.TokenizerSource):
    def open(self, corpus): ...

class Tracker(Picky, contracts.Tracker):
    pass

@hookimpl
def strawberry_register(registry):
    for kind in (Optimizer, Schedule, Data, Tokenizer, Tracker):
        registry.add(kind.__name__.lower(), "picky", kind)
"""


@pytest.mark.parametrize("kind", ["optimizer", "schedule", "data", "tokenizer", "trackers"])
@pytest.mark.parametrize(("size", "said"), [(2, ".size: must not be two"), (1, ": not today")])
def test_a_refusal_has_its_place(
    kind: str, size: int, said: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """A FieldError is the field's, a ValueError the component's; no run is begun."""
    (tmp_path / "picky.py").write_text(PLUGIN)
    (tmp_path / "recipe.yaml").write_text(make_recipe().to_yaml())
    one = f"{{use: picky, size: {size}}}"
    value = f"[{one}]" if kind == "trackers" else one
    plugins = Plugins.load(files=[tmp_path / "picky.py"])
    recipe = load_recipe(tmp_path / "recipe.yaml", [f"{kind}={value}"], plugins=plugins)
    with pytest.raises(RecipeError) as caught:
        train(recipe, tmp_path / "run")
    (problem,) = caught.value.problems
    path = "trackers[0]" if kind == "trackers" else kind
    assert f"{path}{said}" in str(problem)
    assert problem.location is not None
    assert not (tmp_path / "run" / "recipe.yaml").exists()
