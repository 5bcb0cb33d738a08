"""The original project's own model, number for number."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import strawberry
from tests.support import recipe_of

GOLDEN = Path(__file__).with_name("original_air_l4.safetensors")
TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-5}
"""In float64 what is left is the rounding of the golden numbers; float32 adds as much of ours."""

ORIGINAL_AIR = {
    "vocab_size": 96,
    "block_size": 24,
    "n_embd": 32,
    "embedding_norm": True,
    "norm": {"use": "rmsnorm", "gain": False, "eps": 1.1920929e-07},
    "positional": {"use": "rope", "sign": -1},
    "stack": [
        {
            "recur": 2,
            "sharing": "sequence",
            "weights": {"use": "factorized", "rank": 8, "init": "original"},
            "stack": [
                {
                    "repeat": 3,
                    "attention": {
                        "use": "aft_simple",
                        "n_qkv": 64,
                        "qk_norm": True,
                        "qk_eps": 1.1920929e-07,
                        "den_eps": 1e-6,
                        "head": "swiglu",
                    },
                },
                {
                    "attention": {
                        "use": "expert_abundance",
                        "n_head": 4,
                        "n_qkv": 64,
                        "qk_eps": 1.1920929e-07,
                    }
                },
            ],
        }
    ],
}


def seed_names(model):
    """(our parameter, the original's tensor, its rows) for every parameter of ours."""
    names = dict(model.named_parameters())
    source = "stack.nodes.0.weights"
    rows = {"attention_qkv_192x32": 192, "attention_swiglu_64x64": 128, "attention_out_32x32": 32}
    yield names.pop("embedding.weight"), "embed.weight", slice(None)
    start = 0
    for basis, count in rows.items():
        parameter = names.pop(f"{source}.bases.{basis}")
        yield parameter, "block.lr_qkvo.weight", slice(start, start + count)
        start += count
    for block in range(4):
        parameter = names.pop(f"{source}.blocks.{block}")
        yield parameter, "block.lr_layers.weight", slice(32 * block, 32 * block + 32)
    assert not names, f"parameters that the original does not have: {sorted(names)}"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module", params=TOLERANCE, ids=str)
def model(golden, request):
    model = strawberry.build(recipe_of(ORIGINAL_AIR)).to(request.param)
    with torch.no_grad():
        for parameter, name, rows in seed_names(model):
            parameter.copy_(golden[f"param/{name}"][rows])
    return model


def test_logits_and_loss(model, golden):
    """Logits and loss are the original's to 1e-5."""
    with torch.no_grad():
        logits = model(golden["idx"])
        loss = model.loss(golden["idx"], golden["targets"])

    tolerance = TOLERANCE[logits.dtype]
    assert (logits - golden["logits"]).abs().max() < tolerance
    assert abs(loss.total.item() - golden["loss"].item()) < tolerance


def test_gradients(model, golden):
    """The gradient of every parameter is the original's to 1e-5."""
    model.zero_grad()
    model.loss(golden["idx"], golden["targets"]).total.backward()

    for parameter, name, rows in seed_names(model):
        difference = (parameter.grad - golden[f"grad/{name}"][rows]).abs().max()
        assert difference < TOLERANCE[parameter.dtype], name
