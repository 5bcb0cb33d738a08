"""Recursion: routed steps, shared keys, what each step has of its own, and other depths."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.accounting import account
from strawberry.model.recursion import Recursion
from tests.support import tiny

BLOCK = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
ROUTERS = ["token_choice", "expert_choice", "threshold"]


def model_of(router=None, steps=3, **recur):
    routed = {} if router is None else {"router": router}
    return strawberry.build(tiny({"recur": steps, **BLOCK, **routed, **recur}, positional="rope"))


def recursion_of(model):
    (found,) = [m for m in model.modules() if isinstance(m, Recursion)]
    return found


def decide(model, depths):
    """Let the tokens of every sequence run so many steps, whatever they are."""
    router = recursion_of(model).router.depths
    last = torch.tensor(depths) - 1
    choose = router.forward

    def chosen(x):
        expert = last.repeat(len(x) // len(last))[:, None]
        gate = (x @ router.weight.T).softmax(-1).gather(1, expert)
        return dataclasses.replace(choose(x), expert=expert, gate=gate)

    router.forward = chosen


def test_all_tokens_at_full_depth_are_the_plain_recursion():
    """Token choice with every token at full depth: H + p * f(H), with f the plain recursion."""
    routed, plain = model_of("token_choice").eval(), model_of().eval()
    plain.load_state_dict(routed.state_dict(), strict=False)
    decide(routed, [3] * 7)
    idx = torch.arange(7)[None]
    x = plain.embed(idx, plain.use(idx))
    gate = (x @ recursion_of(routed).router.depths.weight.T).softmax(-1)[..., 2:]
    use = Use(torch.arange(7), 0, plain.positional, plain.weights)
    whole, _ = plain.stack(x, use, 0)

    torch.testing.assert_close(routed.trunk(idx)[0], routed.norm(x + gate * whole))


def test_a_token_that_leaves_is_not_seen_again():
    """At a later step a token sees those that go on, with their positions, and no others."""
    model = model_of("token_choice", steps=2).eval()
    depths = [2, 1, 1, 2, 2, 1, 2]
    decide(model, depths)
    idx = torch.randint(61, (1, 7))
    stay = [t for t, depth in enumerate(depths) if depth == 2]

    router, block = recursion_of(model).router, model.visits()[0].block
    x = model.embed(idx, model.use(idx))
    probability = (x @ router.depths.weight.T).softmax(-1)
    use = Use(torch.arange(7), 0, model.positional, model.weights)
    first = block(x, use, 0)[0]
    positions = torch.tensor(stay)
    later = Use(positions, 0, model.positional, model.weights)
    second = block(first[:, stay], later, 0)[0]
    expected = x + probability[..., :1] * first
    expected[:, stay] = x[:, stay] + probability[:, stay, 1:] * second

    torch.testing.assert_close(model.trunk(idx)[0], model.norm(expected))


def test_shared_keys_are_those_of_the_first_step():
    """With `keys: first` a later step attends to keys and values of all tokens at the first."""
    model = model_of(steps=2, keys="first", ffn="none").eval()
    block = model.visits()[0].block
    mixer, norm = block.attention, block.attention_norm
    idx = torch.randint(61, (1, 6))
    x = model.embed(idx, model.use(idx))
    use = Use(torch.arange(6), 0, model.positional, model.weights)

    def parts(h):
        heads = mixer.qkv(h, use).view(1, 6, -1, 8).transpose(1, 2)
        q, k, v = heads.split([*mixer.heads, mixer.heads[1]], dim=1)
        return use.rotate(q), use.rotate(k), v

    def attend(q, k, v):
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixer.out(y.transpose(1, 2).reshape(1, 6, -1), use)

    q, k, v = parts(norm(x))
    x = x + attend(q, k, v)
    later, _, _ = parts(norm(x))
    x = x + attend(later, k, v)

    torch.testing.assert_close(model.trunk(idx)[0], model.norm(x))


def test_shared_keys_take_less_cache():
    """Only the first step has a cache: an R-th of what steps of their own keys have."""
    own, shared = model_of(), model_of(keys="first")

    assert shared.new_cache(1, 16).nbytes() * 3 == own.new_cache(1, 16).nbytes()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("keys", ["own", "first"])
@pytest.mark.parametrize("batch", [1, 3])
def test_generation_is_exact(router, keys, batch):
    """With a cache, tokens that leave early and others: the logits of the whole sequence."""
    model = model_of(router, keys=keys).eval()
    with torch.no_grad():
        recursion_of(model).router.to(torch.float64)
        model.double()
        for parameter in recursion_of(model).router.parameters():
            parameter.mul_(30)  # depths that differ from token to token
        idx = torch.randint(61, (batch, 40))
        whole = model(idx)
        cache = model.new_cache(batch, 40)
        pieces = [model(piece, cache=cache) for piece in idx.split([9, 1, 1, 14, 1, 14], dim=1)]

    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("router", [None, *ROUTERS])
@pytest.mark.parametrize("weights", ["owned", "retained"])
def test_far_past_the_trained_context(router, weights):
    """Token by token with a cache, 512 tokens past the block size: the whole sequence's logits."""
    model = model_of(router, weights=weights).double().eval()
    idx = torch.randint(61, (1, 16 + 512))
    whole = model(idx)
    cache = model.new_cache(1, idx.shape[1])
    pieces = [model(piece, cache=cache) for piece in idx.split([16] + [1] * 512, dim=1)]

    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)


def test_flops_fall_with_capacity():
    """A smaller share of tokens is fewer products, counted in a real pass."""
    flops = []
    for share in (1.0, 0.5, 0.25):
        router = {"use": "expert_choice", "capacity": [1.0, share, share]}
        model = model_of(router).train()
        with FlopCounterMode(display=False) as counter:
            model(torch.randint(61, (2, 16)))
        flops.append(counter.get_total_flops())

    assert flops[0] > flops[1] > flops[2]
    later = [f - flops[2] for f in flops]  # projections: three quarters and a quarter of two steps
    assert later[1] == pytest.approx(later[0] / 3, rel=0.15)


@pytest.mark.parametrize("keys", ["own", "first"])
def test_accounting_follows_the_shares(keys):
    """`build` counts a step for the share of tokens that is meant to run it."""
    half = {"use": "expert_choice", "capacity": [1.0, 0.5]}
    entry = {"recur": 2, "keys": keys, **BLOCK}
    whole = account(tiny({**entry, "router": {**half, "capacity": [1.0, 1.0]}}))
    less = account(tiny({**entry, "router": half}))

    assert less.flops_forward_per_token < whole.flops_forward_per_token
    assert less.depth == whole.depth == 2
    assert less.unique_depth == 1


def test_statistics_are_reported():
    """The share of tokens at each step, steps that hardly any runs, and the mean depth."""
    model = model_of("token_choice")
    decide(model, [1, 1, 2, 2, 1, 1, 1, 1])
    metrics = model.loss(torch.zeros(2, 8, dtype=torch.long), torch.ones(2, 8).long()).metrics

    assert metrics["step_1_share"] == 1
    assert metrics["step_2_share"] == 0.25
    assert metrics["step_3_share"] == 0
    assert metrics["dead_steps"] == 1
    assert metrics["mean_depth"] == 1.25


def test_steps_have_norms_of_their_own():
    """`step_norms` gives each step a norm at every place; the weights stay shared."""
    shared, own = model_of(), model_of(step_norms=True)
    gains = [n for n, _ in own.named_parameters() if "norms" in n]

    assert len(gains) == 2 * 3
    idx = torch.arange(8)[None]
    own.load_state_dict(shared.state_dict(), strict=False)
    torch.testing.assert_close(own(idx), shared(idx))
    with torch.no_grad():
        recursion_of(own).nodes[0].attention_norm.norms[1].weight.mul_(3)
    assert not torch.allclose(own(idx), shared(idx))


def test_steps_have_embeddings_of_their_own():
    """`step_embedding` adds a vector to what enters a step; at the start it is zero."""
    plain, more = model_of(), model_of(step_embedding=True)
    idx = torch.arange(8)[None]
    more.load_state_dict(plain.state_dict(), strict=False)

    torch.testing.assert_close(more(idx), plain(idx))
    with torch.no_grad():
        recursion_of(more).step_embedding[2].fill_(1.0)
    assert not torch.allclose(more(idx), plain(idx))


@pytest.mark.parametrize("fields", [{}, {"step_embedding": True, "step_norms": True}], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_other_depths(fields, steps):
    """Fewer or more steps than in training: the recursion of that depth with the same weights."""
    model, other = model_of(**fields).eval(), model_of(steps=steps, **fields).eval()
    there = other.state_dict()
    own = {n: p for n, p in model.state_dict().items() if n in there and p.shape == there[n].shape}
    other.load_state_dict(own, strict=False)
    idx = torch.arange(8)[None]
    model.set_steps(steps)
    cache = model.new_cache(1, 8)

    torch.testing.assert_close(model(idx), other(idx))
    torch.testing.assert_close(model(idx, cache=cache), other(idx))


def test_depths_that_can_not_be():
    """A model without recursion has one depth; a router knows the steps of its training."""
    with pytest.raises(StrawberryError, match="has no recursion"):
        strawberry.build(tiny(BLOCK)).set_steps(2)
    with pytest.raises(StrawberryError, match="must be at least 1"):
        model_of().set_steps(0)
    with pytest.raises(StrawberryError, match="its router was trained for 3 steps, got 4"):
        model_of("token_choice").set_steps(4)
    fewer = model_of("token_choice").eval()
    fewer.set_steps(2)
    assert fewer(torch.zeros(1, 5, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize(
    ("recur", "message"),
    [
        ({"router": "token_choice", "sharing": "sequence"}, "needs `sharing: cycle`"),
        ({"keys": "first", "attention": "aft_simple"}, "can't use the keys of another step"),
        ({"router": {"use": "expert_choice", "capacity": [1.0]}}, "expected 3 shares"),
        ({"router": {"use": "threshold", "capacity": [0.2, 0.4, 0.1]}}, "shares must not increase"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(recur, message):
    """At build, in one located line."""
    with pytest.raises(RecipeError, match=message) as caught:
        strawberry.build(tiny({"recur": 3, **BLOCK, **recur}))
    assert caught.value.problems[0].location is not None


def test_attention_residuals_can_not_be_routed():
    """A router takes tokens away from a history that all parts mix."""
    entry = {"recur": 2, "router": "token_choice", **BLOCK}
    with pytest.raises(RecipeError, match="a router can't be combined with"):
        strawberry.build(tiny(entry, residual="attention"))


def test_a_router_without_a_name_is_token_choice():
    """Fields alone are those of the default router."""
    model = model_of({"balance_loss": 0.5})

    assert type(recursion_of(model).router).__name__ == "TokenChoiceRouter"
    assert recursion_of(model).router.depths.losses.balance == 0.5
