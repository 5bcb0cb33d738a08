"""What `build` reports, against counts made another way."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import strawberry
from strawberry.contracts import Router
from strawberry.model.accounting import account, computes_in
from strawberry.plugin import Plugins
from tests.support import PLUGINS, TINY, recipe_of, tiny

ROOT = Path(__file__).parents[2]
RECIPES = [*sorted((ROOT / "recipes").glob("*.yaml")), ROOT / "recipes/original.json"]

LLAMA_70B = {
    "vocab_size": 128_256,
    "block_size": 8192,
    "n_embd": 8192,
    "tie_embeddings": False,
    "positional": {"use": "rope", "base": 500_000.0},
    "stack": [
        {
            "repeat": 80,
            "attention": {"use": "mha", "n_head": 64, "n_kv_head": 8},
            "ffn": {"use": "swiglu", "n_ffn": 28_672},
        }
    ],
}


@pytest.fixture(params=RECIPES, ids=lambda path: path.name)
def recipe(request):
    return strawberry.load_recipe(request.param, ["seed=1"], plugins=PLUGINS)


def test_parameters_and_cache_are_exact(recipe):
    """Unique parameters are those of the model that is trained, and bytes those of a real cache.

    Of the cache those of a token and the fixed ones, from a full window on.
    """
    model, report = strawberry.build(recipe), account(recipe)
    limit = model.limit() or 300

    assert report.total_parameters == sum(p.numel() for p in model.parameters())
    for length in (min(256, limit), limit):
        expected = report.cache_fixed_bytes + length * report.cache_bytes_per_token
        assert model.new_cache(1, length).nbytes() == expected


def skip_if_the_data_decides(model):
    """Skip where a router runs other shares of tokens than those that are meant and counted."""
    if any(isinstance(module, Router) and not module.exact for module in model.modules()):
        pytest.skip("the number of tokens depends on the data; the count uses the intended share")


def test_flops_are_torchs(recipe):
    """Forward, and forward with backward, of the whole model as torch's counter counts it.

    In a micro-batch of one sequence, so that it has all of what is computed once in a pass.
    """
    recipe = replace(recipe, train=replace(recipe.train, batch_size=1))
    model = strawberry.build(recipe)
    skip_if_the_data_decides(model)
    idx = torch.zeros(1, recipe.model.block_size, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH):  # the fused CPU kernel is not counted at all
        with torch.no_grad(), FlopCounterMode(display=False) as forward:
            model(idx)
        with FlopCounterMode(display=False) as training:
            model.loss(idx, idx).total.backward()
    report = account(recipe)

    assert report.flops_forward_per_token * idx.numel() == forward.get_total_flops()
    assert report.flops_training_per_token * idx.numel() == training.get_total_flops()


def test_flops_of_blocks_that_share():
    """Keys and values of one block for those after it are counted where they are computed."""
    plugins = Plugins.load(files=[ROOT / "tests/ideas/yoco.py"], disabled=["all"])
    block = {"attention": {"use": "yoco", "n_head": 2}, "ffn": "swiglu"}
    stack = [{"repeat": 2, **block}, {"recur": 2, **block}, block]
    test_flops_are_torchs(recipe_of({**TINY, "stack": stack}, plugins=plugins))


def test_flops_of_llama_by_hand():
    """2 FLOPs for each weight of a matrix and 4 T C for scores and values, three times to train."""
    recipe = strawberry.load_recipe(ROOT / "recipes/llama.yaml")
    report = account(recipe)
    layers, width, length = 2, 64, 256
    matrices = report.parameters["matrix"] + recipe.model.vocab_size * width
    forward = 2 * matrices + layers * 4 * length * width

    assert report.flops_forward_per_token == forward
    # Backward of fused attention computes the scores again: five products where forward has two.
    again = layers * 2 * length * width
    assert report.flops_training_per_token == pytest.approx(3 * forward + again, rel=0.02)


def test_effective_parameters():
    """A block counts once for each use, as if its matrices were dense, whatever they are of."""
    block = {"attention": {"use": "mha", "n_head": 4}}
    alone = account(tiny(block, norm={"use": "rmsnorm", "gain": False}))
    model = {"norm": {"use": "rmsnorm", "gain": False}}
    shared = account(tiny({"recur": 3, **block}, **model))
    low_rank = {"recur": 3, "weights": {"use": "factorized", "rank": 2}, **block}
    factorized = account(tiny(low_rank, **model))
    dense = 4 * 16 * 16

    assert alone.effective_parameters == alone.total_parameters == 61 * 16 + dense
    assert shared.effective_parameters == 61 * 16 + 3 * dense
    assert shared.total_parameters == alone.total_parameters
    assert factorized.effective_parameters == shared.effective_parameters
    assert factorized.total_parameters < shared.total_parameters
    updated = account(tiny({"recur": 3, "weights": "step_lora", **block}, **model))
    assert updated.effective_parameters == shared.effective_parameters < updated.total_parameters
    assert (shared.depth, shared.unique_depth) == (3, 1)


def test_seventy_billion_parameters():
    """A 70B-parameter model is counted without being allocated."""
    report = account(recipe_of(LLAMA_70B))

    assert report.total_parameters == 70_553_706_496
    assert report.cache_bytes_per_token == 80 * 2 * 8 * 128 * 4


def test_risks_are_named():
    """Pairs that work but are seldom meant come with a warning."""
    report = account(tiny({"ffn": "mlp"}))
    assert any("no block mixes tokens" in line for line in report.warnings)

    report = account(tiny({"attention": "mha"}, positional="none"))
    assert any("only the causal mask encodes order" in line for line in report.warnings)


siblings = pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes/gpu").glob("*_124m.yaml")), ids=lambda path: path.name
)


@siblings
def test_siblings_for_a_gpu(path):
    """Each is of about 124M parameters, builds, and computes in what a GPU does."""
    recipe = strawberry.load_recipe(path, plugins=PLUGINS)
    model = strawberry.build(recipe, "meta")

    assert computes_in(recipe) == torch.bfloat16
    assert 100e6 < sum(p.numel() for p in model.parameters()) < 150e6


@pytest.mark.slow
@siblings
def test_siblings_for_a_gpu_are_counted(path):
    """Their small forms are by the tests above, in both dtypes; these take seconds each."""
    recipe = strawberry.load_recipe(path, plugins=PLUGINS)
    report = account(recipe)

    assert report.dtype == "bfloat16"
    assert report.total_parameters == sum(
        p.numel() for p in strawberry.build(recipe, "meta").parameters()
    )


def test_fused_attention_of_a_cpu_is_counted():
    """With grouped heads: two products forward; five backward, which makes the scores again."""
    q, k, v = (torch.zeros(2, heads, 16, 8, requires_grad=True) for heads in (4, 2, 2))
    with FlopCounterMode(display=False) as counter:
        y = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        )
        y.sum().backward()
    product = 2 * (2 * 4) * 16 * 16 * 8

    assert counter.get_total_flops() == 7 * product
