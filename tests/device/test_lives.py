"""Recipes, components and optimizers live on the pretend accelerator as on the CPU.

The default suite takes a few of each; all of them are `python -m pytest tests/device -m slow`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from strawberry.model.build import build
from strawberry.recipe import load_recipe
from strawberry.recipe.load import patch
from strawberry.recipe.spec import Recipe
from tests.components.test_properties import CASES, IDS, recipe_with
from tests.device.lives import (
    NAME,
    RECIPES,
    STEPS,
    accelerator,
    as_elsewhere,
    live,
    small,
    speak,
    trial,
)
from tests.support import REGISTRY, TINY, recipe_of, some_slow

QUICK = {
    "recipes/original_air.yaml",
    "recipes/mor_expert_choice.yaml",
    "attention/linear:gated_delta",
    "ffn/moe:bias",
    "optimizer/muon",
}
SMALL = {"model.vocab_size": 257}
OTHERS = {
    "prodigy": "pytorch_optimizer's own asks for its distances in every step",
}
"""Optimizers of other people that make the host wait, and why."""


def of_optimizer(name: str) -> Recipe:
    block = {"repeat": 2, "attention": "mha", "ffn": "mlp"}
    return recipe_of({**TINY, "positional": "learned", "stack": [block]}, optimizer=name)


CHOICES: dict[str, Callable[[], Recipe]] = {
    **{
        str(path.relative_to(Path(__file__).parents[2])): (lambda path=path: load_recipe(path))
        for path in RECIPES
    },
    **{name: (lambda case=case: recipe_with(*case)) for name, case in zip(IDS, CASES, strict=True)},
    "router/expert_choice:warm_up": lambda: recipe_with(
        "router", "expert_choice", {"capacity_warmup": 3}, "warm_up"
    ),
    **{
        f"optimizer/{entry.name}": (lambda name=entry.name: of_optimizer(name))
        for entry in REGISTRY.entries("optimizer")
    },
}
"""Recipes by their files, components and optimizers by their names."""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text to train on."""
    path = tmp_path / "text.txt"
    path.write_text("It is red, it is blue, and it is what it is; so be it.\n" * 200)
    return path


@pytest.mark.parametrize("name", some_slow(CHOICES, CHOICES.keys() - QUICK))
def test_a_life_on_the_device(
    name: str, text: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Trained, resumed, evaluated, generating, in a trial: the CPU's numbers, and no stall.

    No host read and no unpinned copy in a step between two log lines; for a token one host read,
    that of the token. What can't do without says why.
    """
    chosen = CHOICES[name]()
    if chosen.model.vocab_size < 257:
        chosen = patch(chosen, SMALL)
    spoken = chosen.data.use.rpartition("/")[2] != "synthetic"
    here, there = tmp_path / "cpu", tmp_path / "device"
    with as_elsewhere():
        expected = live(small(chosen, text, device="cpu"), here)
        said = speak(here, "cpu")[0] if spoken else []

    with accelerator() as stalls:
        recipe = small(chosen, text, device=NAME)
        found = live(recipe, there, stalls)
        ids, tokens = speak(there, NAME, stalls) if spoken else ([], [])
        tried = trial(recipe, tmp_path / "trial")

    assert (found.losses, found.metrics) == (expected.losses, expected.metrics)
    assert ids == said
    assert tried["metrics"] == found.metrics
    step, *more = [
        [stall for stall in each if stall.kind != "float64"] for each in (found.step, *tokens)
    ]
    waits = {getattr(module, "waits", "") for module in build(recipe).modules()} - {""}
    if waits:
        assert {stall.kind for each in [step, *more] for stall in each} <= {"read"}
    else:
        assert all([stall.kind for stall in each] == ["read"] for each in more)
        assert not step or name.rpartition("/")[2] in OTHERS, "\n".join(map(str, step))
    record_property(
        "life",
        {
            "name": name,
            "step": len(step) / STEPS,
            "token": max(map(len, more), default=None),
            "reason": "; ".join(sorted(waits)) or (OTHERS[name.rpartition("/")[2]] if step else ""),
        },
    )
