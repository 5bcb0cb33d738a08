"""Each conforms and resumes through a checkpoint bit for bit; each of its fields counts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from strawberry_pytorch_optimizer.plugin import OPTIMIZERS

import strawberry
from strawberry.check import of_component, run
from strawberry.contracts import Tracker
from strawberry.errors import PluginError, RecipeError, StrawberryError
from strawberry.generation import load_run
from strawberry.recipe import Recipe, patch
from strawberry.training import Optimizers, train

pytest.importorskip("pytorch_optimizer")
pytest.importorskip("opt_einsum")

RECIPE = Path(__file__).parents[1] / "recipes" / "soap.yaml"
OTHER: dict[str, list[str]] = {
    "adan": ["betas=[0.9,0.92,0.99]", "eps=1e-3", "weight_decay=0.5", "lr=0.002", "decay=all"],
    "ademamix": ["betas=[0.8,0.999,0.9999]", "alpha=2", "warmup=9", "eps=1e-3", "weight_decay=0.5",
                 "lr=0.002", "decay=all"],
    "adopt": ["betas=[0.8,0.9999]", "eps=1e-1", "weight_decay=0.5", "lr=0.002", "decay=all"],
    "came": ["betas=[0.8,0.999,0.9999]", "clip=0.5", "weight_decay=0.5", "lr=0.002", "decay=all"],
    "prodigy": ["betas=[0.8,0.999]", "d_coef=2", "eps=1e-4", "weight_decay=0.5", "lr=0.5",
                "decay=all"],
    "psgd": ["momentum=0.5", "update_probability=0.5", "max_size_triangular=8", "balance_prob=1",
             "weight_decay=0.5", "lr=0.002", "rest=sgd"],
    "soap": ["betas=[0.8,0.95]", "shampoo_beta=0.5", "precondition_frequency=2",
             "max_precondition_dim=8", "eps=1e-3", "weight_decay=0.5", "lr=0.002", "rest=sgd"],
}  # fmt: skip
"""For each optimizer, another value of each of its fields."""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Eight steps on a small model, a checkpoint after the third."""
    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
    small = ["model.vocab_size=257", "model.block_size=16", "model.n_embd=16", "tokenizer=bytes",
             "train.max_iters=8", "train.log_interval=1", "train.eval_interval=0",
             "train.eval_iters=1", "train.checkpoint_interval=3", "train.warmup_iters=2",
             f"data={{use: text, path: {tmp_path / 'text.txt'}}}"]  # fmt: skip
    return strawberry.load_recipe(RECIPE, small)


class Fails(Tracker):
    """Ends the run at step 5."""

    def step_done(self, run: Path, step: int, metrics: Any) -> None:
        """Raises there."""
        if step == 5:
            raise RuntimeError("on purpose")


def weights(recipe: Recipe, steps: int = 12) -> dict[str, torch.Tensor]:
    """A model's parameters after some steps on noise that is always the same."""
    torch.manual_seed(0)
    model = strawberry.build(recipe)
    optimizers = Optimizers(recipe, model.parameter_infos(), torch.device("cpu"))
    noise = torch.Generator().manual_seed(1)
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = 1 + torch.randn(parameter.shape, generator=noise)  # some direction
        optimizers.step(step)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.component("optimizer/adan")
@pytest.mark.component("optimizer/ademamix")
@pytest.mark.component("optimizer/adopt")
@pytest.mark.component("optimizer/came")
@pytest.mark.component("optimizer/psgd")
@pytest.mark.component("optimizer/soap")
def test_conforms(component_check: Callable[[], None]) -> None:
    """Each descends, moves every parameter, and resumes."""
    component_check()


@pytest.mark.component("optimizer/prodigy")
@pytest.mark.checks(leave_out=["device"])
def test_prodigy_conforms(component_check: Callable[[], None]) -> None:
    """The same of the one whose estimate the host reads in every step."""
    component_check()


def test_the_library_reads_prodigys_estimate_in_every_step() -> None:
    """The `device` check names the library's lines; a note for who trains with it on a GPU."""
    (outcome,) = run(of_component("optimizer", "prodigy"), ["device"])
    assert outcome.verdict == "failed"
    assert "prodigy.py" in outcome.detail
    assert "the host reads from the device" in outcome.detail


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_is_the_run(name: str, recipe: Recipe, tmp_path: Path) -> None:
    """Through the files of a checkpoint, to the last bit of the weights."""
    recipe = patch(recipe, [f"optimizer={name}"])
    train(recipe, tmp_path / "whole")
    with pytest.raises(PluginError, match="on purpose"):
        train(recipe, tmp_path / "run", trackers=[Fails()])
    train(recipe, tmp_path / "run", resume=True)
    one, other = (load_run(tmp_path / run).model.state_dict() for run in ("whole", "run"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, fs in OTHER.items() for f in fs])
def test_each_field_counts(name: str, field: str, recipe: Recipe) -> None:
    """With another value of it alone the weights end elsewhere."""
    plain = patch(recipe, [f"optimizer={{use: {name}, weight_decay: 0.2}}"])
    key, value = field.split("=")
    others = f"{key}: {value}" if key == "weight_decay" else f"weight_decay: 0.2, {key}: {value}"
    other = patch(recipe, [f"optimizer={{use: {name}, {others}}}"])
    before, after = weights(plain), weights(other)
    assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", OTHER)
def test_no_field_is_left_out(name: str, recipe: Recipe) -> None:
    """The table above has every field of every optimizer."""
    (spec,) = patch(recipe, [f"optimizer={name}"]).optimizer
    assert {field.split("=")[0] for field in OTHER[name]} == set(spec.component.fields)


@pytest.mark.parametrize("name", ["soap", "psgd"])
def test_only_hidden_matrices_are_preconditioned(name: str, recipe: Recipe) -> None:
    """Embeddings and gains move as they do under the optimizer that `rest` names."""
    mine = weights(patch(recipe, [f"optimizer={name}"]))
    plain = weights(patch(recipe, ["optimizer=adamw"]))
    same = {key for key in mine if torch.equal(mine[key], plain[key])}
    assert {key for key in mine if mine[key].ndim < 2} <= same
    assert any("embed" in key for key in same)
    assert not any("attention" in key and mine[key].ndim == 2 for key in same)


@pytest.mark.parametrize(
    ("missing", "name"), [("pytorch_optimizer", "adan"), ("opt_einsum", "psgd")]
)
def test_without_a_package(
    missing: str, name: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what to install."""
    recipe = patch(recipe, [f"optimizer={name}"])
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises((RecipeError, StrawberryError), match=r"pip install (pytorch-|opt-)"):
        weights(recipe)
