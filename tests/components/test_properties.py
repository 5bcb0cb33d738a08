"""What every mixer, network, norm, position and weight source must hold, over the whole registry.

A component that is registered later is tested here without anybody remembering it; one that needs
other fields than its defaults gets a line in `FIELDS`, and one with modes that differ gets lines in
`VARIANTS`. `tools/property_matrix.py` prints the outcome, component by property.
"""

import functools
import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import strawberry
from strawberry.contracts import Attention, Router
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.accounting import account
from strawberry.model.risks import declares
from tests.support import REGISTRY, TINY, recipe_of

KINDS = ("attention", "ffn", "norm", "positional", "router", "weights", "residual", "block",
         "embedding")  # fmt: skip
FIELDS = {
    # At heads of width 4 its norm magnifies the rounding of sums near zero past any tolerance.
    "attention/linear": {"head_norm": False},
}
VARIANTS = {
    "attention/linear": {
        "delta": {"rule": "delta"},
        "gated_delta": {"rule": "gated_delta", "chunk": 4},
        "heads": {"chunk": 4, "conv": 3, "n_v": 24, "n_head": 2},
    },
    "attention/mla": {
        "narrow": {"q_rank": 6, "kv_rank": 3, "nope_width": 6, "rope_width": 4, "v_width": 10},
        "wide": {"q_rank": 8, "kv_rank": 24, "v_width": 2},
    },
    "attention/mha": {
        "grouped": {"n_kv_head": 2, "qk_norm": True},
        "window": {"window": 4},
        "narrow": {"window": 2},
        "sink": {"sink": True, "temperature": 1.2},
        "sink_window": {"sink": True, "window": 4, "n_kv_head": 1},
        "gate": {"gate": "elementwise"},
        "head_gate": {"gate": "headwise"},
        "value_embedding": {"value_embedding": True},
    },
    "attention/moe_attention": {
        "grouped": {"n_kv_head": 2},
        "single": {"active": 1},
        "all": {"experts": 4, "active": 4, "qk_norm": True},
        "bias": {"balance_loss": 0.0, "z_loss": 0.0, "bias_rate": 0.01, "n_qkv": 24},
    },
    "attention/aft_full": {"rank": {"rank": 3, "qk_norm": True, "head": "swiglu"}},
    "attention/aft_local": {"short": {"window": 3}, "rank": {"window": 4, "rank": 3}},
    "attention/aft_conv": {
        "short": {"window": 3},
        "full": {"window": 5, "k_channels": "full", "qk_norm": True},
    },
    "ffn/moe": {
        "expert_choice": {"routing": "expert", "z_loss": 0.001},
        "expert_choice_shared": {"routing": "expert", "gate": "sigmoid", "shared": 1},
        "bias": {"gate": "sigmoid", "bias_rate": 0.001, "scale": 2.0},
        "single": {"active": 1, "z_loss": 0.001},
        "shared": {"shared": 2, "expert": "relu2"},
    },
    "attention/expert_abundance": {
        "window": {"window": 4},
        "experts": {"experts": 4, "active": 2},
        "local": {"experts": 4, "active": 2, "window": [2, 3, 4, 6]},
        "one_window": {"experts": 2, "active": 1, "window": 4},
        "shared": {"experts": 2, "active": 1, "shared": 1, "window": [2, 4, 3], "n_kv_head": 1},
        "all": {"experts": 4, "active": 4, "gate": "softmax", "balance_loss": 0.01, "z_loss": 0.1},
    },
    "positional/rope": {
        "interleaved": {"layout": "interleaved", "partial": 0.5},
        "yarn": {"scaling": "yarn", "factor": 2.0},
    },
    "norm/layernorm": {"plain": {"bias": False}},
    "router/token_choice": {
        "keys": {},
        "middle": {},
        "bias": {"bias_rate": 0.001, "balance_loss": 0.0},
        "sigmoid": {"gate": "sigmoid"},
    },
    "router/expert_choice": {
        "keys": {},
        "middle": {},
        "aux_router": {"learn": "aux_router", "capacity": [0.9, 0.5, 0.25]},
    },
    "router/threshold": {"keys": {}, "middle": {}},
    "weights/retained": {
        "low_rank": {"rank": 2, "gain": "rms"},
        "oa": {"rule": "oa"},
        "bilinear": {"rule": "bilinear", "gain": "rms"},
        "mlp": {"rule": "mlp", "gain": "none"},
    },
    "weights/fast_weights": {
        "decay": {"decay": 0.7, "chunk": 4, "rank": 5},
        "swap": {"form": "chunk", "rule": "swap", "chunk": 3},
        "oa": {"form": "chunk", "chunk": 4, "decay": 0.8, "rank": 16},
        "bilinear": {"form": "chunk", "rule": "bilinear", "chunk": 5, "rank": 3},
        "mlp": {"form": "chunk", "rule": "mlp", "chunk": 4, "gamma": 1.0},
    },
    "weights/step_lora": {
        "factorized": {"of": {"use": "factorized", "rank": 3}, "rank": 2, "alpha": 4.0},
        "retained": {"of": "retained"},
        "shared": {"of": "shared"},
    },
    "model": {
        "post": {"residual": {"placement": "post"}},
        "sandwich": {"residual": {"placement": "sandwich", "scale": "learned"}},
        "scaled": {"residual": {"scale": "depth"}},
        "attention_residual": {"residual": "attention"},
        "attention_residual_sandwich": {"residual": {"use": "attention", "placement": "sandwich"}},
    },
}
RECUR = {
    "keys": {"keys": "first"},
    "middle": {"sharing": "middle_cycle", "stack": [{"attention": "mha"}] * 3},
}
"""What the recursion around a router has, by the label of the variant."""
RECURRING = {"retained", "step_lora"}
"""The weight sources that are opened at a `recur`."""
ZERO_AT_FIRST = {"step_lora"}
"""Components whose output is zero at first, as a product of which one factor is."""
AMPLIFYING = {"retained_fb0a8c9"}
"""Components that rounding of the weights alone moves far, in full precision too."""
CASES = [(kind, e.name, {}, "") for kind in KINDS for e in REGISTRY.entries(kind)]
CASES += [
    (*key.partition("/")[::2], fields, label)
    for key, variants in VARIANTS.items()
    for label, fields in variants.items()
]
IDS = [":".join(filter(None, (f"{kind}/{name}", label))) for kind, name, _, label in CASES]
T = 13


def recipe_with(kind, name, fields, label, **sections):
    """A two-block recurring recipe in which this component has its place."""
    component = {"use": name, **FIELDS.get(f"{kind}/{name}", {}), **fields}
    block = {"attention": "mha", "ffn": "swiglu"}
    model = {"positional": "rope", "norm": "rmsnorm"}
    if kind in block:
        block[kind] = component
    elif kind == "model":
        model |= fields
    elif kind != "router":
        model[kind] = component
        beside = getattr(REGISTRY.find(kind, name).load(), "checked_with", {})
        model |= {path.removeprefix("model."): value for path, value in beside.items()}
    if kind == "attention":
        honours = REGISTRY.find(kind, name).load().honours
        model["positional"] = "rope" if "rotary" in honours else "none"
    recur = {"recur": 2, **block}
    if name in RECURRING:
        recur |= {"recur": 3, "weights": model.pop("weights")}
    if kind == "router":
        recur = {"recur": 3, "router": component, "stack": [block, block], **RECUR.get(label, {})}
    stack = [{"repeat": 2, **block}, recur]
    return recipe_of({**TINY, **model, "stack": stack}, **sections)


@pytest.fixture(params=CASES, ids=IDS)
def case(request):
    return request.param


@pytest.fixture
def recipe(case):
    kind, name, _, label = case
    return recipe_at(f"{kind}/{name}", label)


@functools.cache
def recipe_at(name, label):
    """The recipe of a case, read once for all of its tests."""
    return next(recipe_with(*c) for c in CASES if (f"{c[0]}/{c[1]}", c[3]) == (name, label))


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
    """A change at a token changes no earlier logit, and does change its own, at any scale.

    A component that declares itself non-causal must be: else the declaration is wrong.
    """
    model.train(training)
    leaks = []
    with torch.no_grad():
        for table in model.embedding.parameters():
            table.mul_(scale)
        before = model(idx)
        for position, change in itertools.product((1, T // 2, T - 1), (1, 20)):
            changed = idx.clone()
            changed[:, position:] = (changed[:, position:] + change) % 61
            after = model(changed)
            tolerance = 1e-5 * before.abs().max()
            leaks.append((after - before)[:, :position].abs().max() > tolerance)

            assert (after - before)[:, position].abs().max() > tolerance

    assert any(leaks) == (not declares(model, "causal"))


def test_past_reaches_the_present(model, idx, request):
    """The last logits depend on an earlier token, in every model that mixes tokens."""
    changed = idx.clone()
    changed[:, -2] = changed[:, -1]  # a repetition, for mixers that look for one
    with torch.no_grad():
        assert (model(changed) - model(idx))[:, -1].abs().max() > 1e-6


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_batch_independence(model, idx, training):
    """Other rows of the batch, or their absence, change nothing.

    A component that declares in this mode that they change something must show it.
    """
    model.train(training)
    with torch.no_grad():
        alone = model(idx[:1])[0]
        whole = model(idx)[0]
        other = model(torch.cat([idx[:1], (idx[1:] + 1) % 61]))[0]

    if declares(model, "batch_independent"):
        torch.testing.assert_close(other, whole, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-5)
    else:
        moved = torch.stack([other - whole, alone - whole]).abs().max()
        assert moved > 1e-3 * whole.abs().max()


@pytest.mark.parametrize("split", [[T], [1] * T, [5, 1, 1, 6], [7, 6]], ids=str)
def test_cache_equals_parallel(model, idx, split):
    """Any split of a sequence into cached calls gives the logits of one call without a cache."""
    if not declares(model, "causal"):
        pytest.skip("declares itself non-causal: generation computes the whole sequence anew")
    model.eval()
    with torch.no_grad():
        expected = model(idx)
        cache = model.new_cache(batch=3, length=T)
        pieces = [model(piece, cache=cache) for piece in idx.split(split, dim=1)]

    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-4, atol=1e-5)
    assert cache.offset == T


def test_prefix_equality(model, idx):
    """The logits of a prefix are those of the whole sequence there."""
    if not declares(model, "causal"):
        pytest.skip("declares itself non-causal: earlier outputs follow from later tokens")
    model.eval()
    with torch.no_grad():
        whole = model(idx)
        for length in (1, 4, 7, T - 1):
            torch.testing.assert_close(
                model(idx[:, :length]), whole[:, :length], rtol=1e-4, atol=1e-5
            )


def test_gradients_reach_every_parameter(case, model, idx):
    """No parameter is left without a gradient, and none of them is NaN.

    Where a product starts at zero, its one factor has a gradient as soon as the other has moved.
    """
    targets = (idx * 7 + 3) % 61
    if case[1] in ZERO_AT_FIRST:
        model.loss(idx, targets).total.backward()
        for parameter in model.parameters():
            if not parameter.any():
                assert parameter.grad.any()
                torch.nn.init.normal_(parameter, std=0.1)
        model.zero_grad()
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


def test_bfloat16(case, model, idx):
    """Under bfloat16 autocast and in bfloat16 weights: finite, close, and of the right dtype.

    Where a router chooses, rounding sends a few tokens elsewhere; and where a mixer normalises
    what it mixed, a token for which that is nearly nothing is rounding itself. Most must be close.
    """
    model.eval()
    routed = any(info.kind == "router" for info in model.parameter_infos())
    with torch.no_grad():
        exact = model(idx)
        with torch.autocast("cpu", torch.bfloat16):
            cast = model(idx)
        half = model.to(torch.bfloat16)(idx)

    assert half.dtype == torch.bfloat16
    errors = [(rounded.float() - exact).abs().amax(-1).flatten() for rounded in (cast, half)]
    assert all(worst.isfinite().all() for worst in errors)
    if case[1] in AMPLIFYING:
        pytest.skip("rounding of the weights alone moves its outputs far: finite, but not close")
    for worst in errors:
        assert worst.quantile(0.7 if routed else 0.9) < 0.1 * exact.abs().max()
        assert routed or worst.max() < 0.3 * exact.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("grad", [True, False], ids=["train", "eval"])
def test_compile_fullgraph(model, idx, grad):
    """One graph, without breaks, with the results of eager mode."""
    routers = [module for module in model.modules() if isinstance(module, Router)]
    if routers and not (grad and all(router.exact for router in routers)):
        pytest.skip("how many tokens run a step is known at run time alone")
    model.train(grad)
    torch._dynamo.reset()
    compiled = torch.compile(model.trunk, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(compiled(idx)[0], model.trunk(idx)[0], rtol=1e-4, atol=1e-5)


def test_state_is_declared(model):
    """A cacheable mixer's state has one row for each sequence; one that isn't is never asked."""
    if not declares(model, "cacheable"):
        with pytest.raises(StrawberryError, match="has no decoding state"):
            model.new_cache(batch=3, length=T)
        return
    cache = model.new_cache(batch=3, length=T)
    assert all(isinstance(visit.block.attention, Attention) for visit in model.visits())
    assert all(tensor.shape[0] == 3 for state in cache.states for tensor in state.values())


def test_documents_are_kept_apart(case, idx):
    """With a document mask, what stands before a separator changes nothing, were it not there.

    A mixer that can't keep documents apart is refused at build, in one located line.
    """
    recipe = recipe_with(*case, train={"document_mask": True})
    try:
        model = strawberry.build(recipe).eval()
    except RecipeError as error:
        (problem, *_) = error.problems
        assert "can't separate documents" in problem.message
        assert problem.location is not None
        return
    if not declares(model, "causal"):
        pytest.skip("declares itself non-causal")
    model.separator = 60
    idx[:] = idx % 60
    idx[:, 5] = 60
    with torch.no_grad():
        before = model(idx)
        changed = idx.clone()
        changed[:, :5] = (changed[:, :5] + 1) % 60
        after = model(changed)
        alone = model(idx[:, 5:])

    torch.testing.assert_close(after[:, 5:], before[:, 5:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, before[:, 5:], rtol=1e-4, atol=1e-5)


def test_counted_flops_are_those_of_a_run(case, recipe):
    """What accounting counts on the meta device is what torch's counter sees in a real pass."""
    model = strawberry.build(recipe)
    routers = [m for m in model.modules() if isinstance(m, Router)]
    if not all(router.exact for router in routers):
        pytest.skip("the number of tokens depends on the data; the count uses the intended share")
    model.train(bool(routers))
    length = recipe.model.block_size
    idx = torch.randint(61, (1, length))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(idx)

    alone = recipe_with(*case, train={"batch_size": 1})  # what is computed once is for one sequence
    counted = account(alone).flops_forward_per_token * length

    assert counted == pytest.approx(counter.get_total_flops(), rel=1e-6)
