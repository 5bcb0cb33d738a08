"""What a component keeps for later blocks is there where activations are computed again."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import strawberry
from strawberry.contracts import Use
from strawberry.model.language_model import LanguageModel
from strawberry.model.stack import recompute_blocks
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from tests.model import keepers
from tests.training.test_compiling import TORCHS_OWN

LLAMA = Path(__file__).parents[2] / "recipes/llama.yaml"
IDS = torch.arange(48).view(2, 24) % 61
KEPT = ["InMemo", "InOnce", "OnItself"]


def model_of(name: str) -> LanguageModel:
    """Three blocks of that mixer, two of them recurring, in float64."""
    block = f"{{attention: keepers/{name}, ffn: swiglu}}"
    sets = [
        "model.n_embd=16",
        "model.block_size=32",
        "model.vocab_size=61",
        "model.positional=none",
        f"model.stack=[{block}, {{recur: 2, stack: [{block}]}}]",
    ]
    plugins = Plugins.load(files=[Path(keepers.__file__)])
    return strawberry.build(load_recipe(LLAMA, sets, plugins=plugins)).double().train()


def gradients(model: LanguageModel, ids: Tensor = IDS) -> list[Tensor]:
    """The loss, and the gradient of each parameter."""
    loss = model.loss(ids, ids).total
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@TORCHS_OWN
@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in KEPT for how in ("eager", "compiled")),
        ("InMemo", "blocks compiled"),
        ("InOnce", "blocks compiled"),
    ],
)
def test_computing_again_changes_nothing(
    name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradients are those of the pass that keeps its activations, to the last digits."""
    expected = gradients(model_of(name))
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = model_of(name)
    recompute_blocks(model)
    if how == "compiled":
        model.compile_trunk()
    elif how == "blocks compiled":
        model.compile_blocks()
    for got, wanted in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["InMemo", "InOnce"])
def test_what_was_kept_is_read(name: str) -> None:
    """The test above can fail: without what was kept, the loss is another."""
    model = model_of(name)
    whole = gradients(model)[0]
    for visit in model.visits():
        visit.block._forward = partial(alone, visit.block._forward)  # type: ignore[method-assign]
    assert abs(gradients(model)[0] - whole) > 1e-6


def alone(forward: Any, stream: Any, use: Use, slot: int) -> Any:
    """A block's pass with nothing kept by others."""
    return forward(stream, replace(use, memo={}, once={}), slot)
