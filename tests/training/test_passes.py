"""Several gradients of one batch: an optimizer that takes more than one pass a step."""

from pathlib import Path

import torch

import strawberry
from strawberry.check import of_component, run_one
from strawberry.model.accounting import account
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.recipe.spec import Recipe
from strawberry.runs.device import machine_for
from strawberry.training.engine import Engine
from strawberry.training.optimizers import Optimizers
from strawberry.training.step import Step

IDEAS = Path(__file__).parents[1] / "ideas"


def step_of(recipe: Recipe, parts: list) -> Step:
    """The steps of a recipe's model over these micro-batches."""
    machine = machine_for(recipe)
    model = strawberry.build(recipe).train()
    optimizers = Optimizers(recipe, model.parameter_infos(), machine.device)
    return Step(Engine(model), optimizers, lambda _: parts, machine, 0.0)


def loaded(name: str, path: Path) -> Recipe:
    return load_recipe(path, plugins=Plugins.load(files=[IDEAS / f"{name}.py"], disabled=["all"]))


def test_sam_is_what_the_paper_says(recipe_file):
    """The gradient at `w + rho g / |g|`, of two micro-batches, and w as it was."""
    path = recipe_file(optimizer={"use": "sam", "rho": 0.3}, model={"dropout": 0.0})
    ids = torch.randint(257, (2, 2, 17), generator=torch.Generator().manual_seed(1))
    parts = [(x[:, :-1], x[:, 1:]) for x in ids]
    step = step_of(loaded("sam", path), parts)
    model = step.engine.model
    before = [p.detach().clone() for p in model.parameters()]
    step.gradient(3)
    taken = [p.grad.clone() for p in model.parameters()]
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))

    def gradient():
        model.zero_grad()
        whole = ids.flatten(0, 1)
        model.loss(whole[:, :-1], whole[:, 1:]).total.backward()
        return [p.grad.clone() for p in model.parameters()]

    first = gradient()
    norm = sum(float(g.square().sum()) for g in first) ** 0.5
    with torch.no_grad():
        for p, g in zip(model.parameters(), first, strict=True):
            p.add_(g, alpha=0.3 / norm)
    torch.testing.assert_close(taken, gradient(), rtol=1e-4, atol=1e-6)


def test_each_micro_batch_carries_its_own_state(recipe_file):
    """The objective finds what it left of the same rows, and nothing at the next step."""
    path = recipe_file(objective="carried", optimizer="several", model={"dropout": 0.0})
    parts = [(torch.full((1, 4), n), torch.full((1, 4), n)) for n in (3, 9)]
    step = step_of(loaded("tiny_recursive", path), parts)
    seen = []
    forward = step.engine.model.objective.forward

    def told(batch):
        seen.append((int(batch.ids[0, 0]), sorted(batch.carried)))
        return forward(batch)

    step.engine.model.objective.forward = told
    before = [p.detach().clone() for p in step.engine.model.parameters()]
    for number in (0, 1):
        step.gradient(number)
        step.apply(number)
    once = [(3, []), (9, []), *[(3, ["state"]), (9, ["state"])] * 2]
    assert seen == once * 2
    assert any(
        not torch.equal(p, b) for p, b in zip(step.engine.model.parameters(), before, strict=True)
    )


def test_passes_are_counted(recipe_file):
    """Two gradients take twice the FLOPs of training."""
    once = account(load_recipe(recipe_file("one")))
    twice = account(loaded("sam", recipe_file("two", optimizer="sam")))
    assert twice.flops_training_per_token == 2 * once.flops_training_per_token


def test_sam_keeps_the_contract_of_optimizers():
    """It descends, moves everything, and resumes bit for bit."""
    plugins = Plugins.load(files=[IDEAS / "sam.py"], disabled=["all"])
    subject = of_component("optimizer", "sam/sam", plugins=plugins)
    for check in ("descends", "moves", "resumes"):
        assert run_one(subject, check).verdict == "passed"
