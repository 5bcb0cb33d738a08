"""A run that begins with weights from elsewhere."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import strawberry
from strawberry.errors import RecipeError, StrawberryError
from strawberry.generation import generate, load_run
from strawberry.recipe.spec import Recipe
from strawberry.training import begin, evaluate, train
from tests.training.conftest import RecipeMaker


def weights_of(recipe: Recipe) -> dict[str, Tensor]:
    """Weights that no seed draws."""
    drawn = strawberry.build(recipe).state_dict()
    return {name: tensor + 0.01 for name, tensor in drawn.items()}


def test_it_holds_the_weights_at_step_0(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The folder is a run: it loads with these weights, generates and evaluates."""
    recipe = make_recipe()
    weights = weights_of(recipe)
    run = begin(recipe, tmp_path / "run", weights)
    loaded = load_run(run)
    assert loaded.step == 0
    assert all(torch.equal(weights[k], v) for k, v in loaded.model.state_dict().items())
    assert isinstance(generate(run, "line", max_new_tokens=2), str)
    assert evaluate(run, iters=1)["val_loss"] > 0
    assert not (run / ".holder").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "schedule_free_adamw"])
def test_its_training_goes_on_from_them(
    optimizer: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """With the weights that the seed draws it is, bit for bit, the run that draws them."""
    recipe = make_recipe(optimizer=optimizer)
    train(recipe, tmp_path / "drawn")
    begin(recipe, tmp_path / "given", strawberry.build(recipe).state_dict())
    assert train(recipe, tmp_path / "given", resume=True).steps == 8
    one, other = (load_run(tmp_path / name).model.state_dict() for name in ("drawn", "given"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_can_not_be_begun_leaves_nothing(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Weights of another model, or not finite, and data that can't be had: no folder is left."""
    recipe = make_recipe()
    weights = weights_of(recipe)
    run = tmp_path / "run"
    with pytest.raises(StrawberryError, match=r"don't fit this model: .*Missing key") as e:
        begin(recipe, run, {k: v for k, v in weights.items() if k != "norm.weight"})
    assert "\n" not in str(e.value)
    with pytest.raises(StrawberryError, match=r"size mismatch for norm\.weight"):
        begin(recipe, run, {**weights, "norm.weight": torch.ones(3)})
    with pytest.raises(StrawberryError, match=r"not finite: norm\.weight"):
        begin(recipe, run, {**weights, "norm.weight": torch.full((16,), torch.nan)})
    with pytest.raises(RecipeError, match="no such file"):
        begin(make_recipe(data={"use": "text", "path": "nowhere"}), run, weights)
    assert not run.exists()


def test_a_run_is_not_written_over(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A folder with a run in it is refused, and keeps it."""
    recipe = make_recipe(train={"max_iters": 2})
    train(recipe, tmp_path / "run")
    with pytest.raises(StrawberryError, match="contains a run; name another folder"):
        begin(recipe, tmp_path / "run", weights_of(recipe))
    assert load_run(tmp_path / "run").step == 2
