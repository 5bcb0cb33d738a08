"""What every mixer, network, norm, position and weight source must hold, over the whole registry.

A component that is registered later is tested here without anybody remembering it; one that needs
other fields than its defaults to be built gets a line in `FIELDS`.
"""

import pytest
import torch

import strawberry
from strawberry.model.contracts import Attention
from strawberry.plugin import Plugins
from tests.support import tiny

REGISTRY = Plugins.load().registry
KINDS = ("attention", "ffn", "norm", "positional", "weights")
FIELDS: dict[str, dict[str, object]] = {}
CASES = [(kind, entry.name) for kind in KINDS for entry in REGISTRY.entries(kind)]
T = 13


def recipe_with(kind, name):
    """A two-block recurring recipe in which this component has its place."""
    component = {"use": name, **FIELDS.get(f"{kind}/{name}", {})}
    block = {"attention": "mha", "ffn": "swiglu"}
    model = {"positional": "rope", "norm": "rmsnorm"}
    if kind in block:
        block[kind] = component
    else:
        model[kind] = component
    if kind == "attention":
        honours = REGISTRY.find(kind, name).load().honours
        model["positional"] = "rope" if "rotary" in honours else "none"
    return tiny({"repeat": 2, **block}, {"recur": 2, **block}, **model)


@pytest.fixture(params=CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def recipe(request):
    return recipe_with(*request.param)


@pytest.fixture
def model(recipe):
    return strawberry.build(recipe)


@pytest.fixture
def idx():
    torch.manual_seed(5)
    return torch.randint(61, (3, T))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("scale", [1, 30])
def test_causality(model, idx, training, scale):
    """A change at a token changes no earlier logit, and does change its own, at any scale."""
    model.train(training)
    with torch.no_grad():
        model.embedding.weight.mul_(scale)
        before = model(idx)
        for position in (1, T // 2, T - 1):
            changed = idx.clone()
            changed[:, position:] = (changed[:, position:] + 1) % 61
            after = model(changed)
            tolerance = 1e-5 * before.abs().max()

            assert (after - before)[:, :position].abs().max() <= tolerance
            assert (after - before)[:, position].abs().max() > tolerance


def test_past_reaches_the_present(model, idx, request):
    """The last logits depend on an earlier token, in every model that mixes tokens."""
    changed = idx.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 61
    with torch.no_grad():
        assert (model(changed) - model(idx))[:, -1].abs().max() > 1e-6


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_batch_independence(model, idx, training):
    """Other rows of the batch, or their absence, change nothing."""
    model.train(training)
    with torch.no_grad():
        whole = model(idx)
        other = torch.cat([idx[:1], (idx[1:] + 1) % 61])

        torch.testing.assert_close(model(other)[0], whole[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(idx[:1])[0], whole[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("split", [[T], [1] * T, [5, 1, 1, 6], [7, 6]], ids=str)
def test_cache_equals_parallel(model, idx, split):
    """Any split of a sequence into cached calls gives the logits of one call without a cache."""
    model.eval()
    with torch.no_grad():
        expected = model(idx)
        cache = model.new_cache(batch=3, length=T)
        pieces = [model(piece, cache=cache) for piece in idx.split(split, dim=1)]

    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-4, atol=1e-5)
    assert cache.offset == T


def test_prefix_equality(model, idx):
    """The logits of a prefix are those of the whole sequence there."""
    model.eval()
    with torch.no_grad():
        whole = model(idx)
        for length in (1, 4, 7, T - 1):
            torch.testing.assert_close(
                model(idx[:, :length]), whole[:, :length], rtol=1e-4, atol=1e-5
            )


def test_gradients_reach_every_parameter(model, idx):
    """No parameter is left without a gradient, and none of them is NaN."""
    targets = (idx * 7 + 3) % 61
    model.loss(idx, targets).total.backward()
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert dead == []


def test_determinism(recipe, model, idx):
    """The same recipe gives the same weights, and the same input the same output."""
    again = strawberry.build(recipe)
    with torch.no_grad():
        assert torch.equal(again.eval()(idx), model.eval()(idx))


def test_meta_build(recipe, model):
    """On the meta device: the same parameters, nothing allocated."""
    meta = strawberry.build(recipe, device="meta")
    shapes = {name: p.shape for name, p in model.named_parameters()}

    assert {name: p.shape for name, p in meta.named_parameters()} == shapes
    assert all(t.is_meta for t in [*meta.parameters(), *meta.buffers()])


def test_save_and_load(recipe, model, idx):
    """A state dict carries everything: loaded into a fresh model, it gives equal logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
        fresh = strawberry.build(recipe)
        fresh.load_state_dict(model.state_dict())

        assert torch.equal(fresh.eval()(idx), model.eval()(idx))


def test_bfloat16(model, idx):
    """Under bfloat16 autocast and in bfloat16 weights: finite, close, and of the right dtype."""
    model.eval()
    with torch.no_grad():
        exact = model(idx)
        with torch.autocast("cpu", torch.bfloat16):
            cast = model(idx)
        half = model.to(torch.bfloat16)(idx)

    scale = exact.abs().max()
    assert half.dtype == torch.bfloat16
    assert (cast.float() - exact).abs().max() < 0.1 * scale
    assert (half.float() - exact).abs().max() < 0.1 * scale


@pytest.mark.slow
@pytest.mark.parametrize("grad", [True, False], ids=["train", "eval"])
def test_compile_fullgraph(model, idx, grad):
    """One graph, without breaks, with the results of eager mode."""
    model.train(grad)
    torch._dynamo.reset()
    compiled = torch.compile(model.trunk, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(compiled(idx)[0], model.trunk(idx)[0], rtol=1e-4, atol=1e-5)


def test_state_is_declared(model):
    """A cacheable mixer's state has one row for each sequence of the batch."""
    cache = model.new_cache(batch=3, length=T)
    for visit, state in zip(model.visits(), cache.states, strict=True):
        assert isinstance(visit.block.attention, Attention)
        assert all(tensor.shape[0] == 3 for tensor in state.values())
