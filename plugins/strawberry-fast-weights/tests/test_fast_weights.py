"""Fast weights against literal loops over tokens and chunks."""

import math

import pytest
import torch
from torch.nn import functional as F

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import recipe_from

PLUGINS = Plugins.load()
TINY = {"vocab_size": 61, "block_size": 16, "n_embd": 16}

B, T, C = 2, 13, 16
RULES = ["swap", "oa", "bilinear", "mlp"]
SPLITS = [[T], [1] * T, [5, 1, 1, 6], [4, 4, 5]]


def recipe_of(model, **sections):
    """The recipe with this `model` section, and other sections as given."""
    return recipe_from({"name": "test", "model": model, **sections}, "test", plugins=PLUGINS)


def tiny(*stack, **model):
    """A recipe of width 16 over these stack entries."""
    return recipe_of({**TINY, **model, "stack": list(stack)})


def projection_of(**fields):
    """The projection with a memory, its source, and a use of it without a cache."""
    block = {"attention": "mha", "weights": {"use": "fast_weights", **fields}}
    model = strawberry.build(tiny(block, positional="rope", bias=True)).double()
    torch.manual_seed(3)
    qkv = model.visits()[0].block.attention.qkv
    with torch.no_grad():
        qkv.bias.normal_()
        if getattr(qkv, "tau", None) is not None:
            qkv.tau.fill_(-0.7)
    source = model.visits()[0].weights
    return qkv, source, Use(torch.arange(T), 0, model.positional, source)


@pytest.fixture
def x():
    return torch.randn(B, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def rms(row, eps=1e-6):
    return row / torch.sqrt((row**2).mean() + eps)


def scaled(W, n):
    return W / math.sqrt(n) / (W.std() + 1e-8)


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_linear(x, decay):
    """`h'_t` is the input and what all earlier tokens wrote, weighted by query and age."""
    qkv, _, use = projection_of(decay=decay, rank=5, chunk=4, gamma=0.6)
    want = torch.empty(B, T, 3 * C, dtype=torch.float64)
    for b in range(B):
        for t in range(T):
            recalled, total = torch.zeros(C, dtype=torch.float64), 0.0
            for s in range(t):
                age = decay ** (t - 1 - s)
                o, a = rms(qkv.value @ x[b, s]), rms(qkv.key @ x[b, s])
                recalled = recalled + age * (qkv.query @ x[b, t]).dot(a) / math.sqrt(5) * o
                total += age
            mixed = x[b, t] + 0.6 * recalled / max(total, 1.0)
            want[b, t] = qkv.weight @ mixed + qkv.bias

    torch.testing.assert_close(qkv(x, use), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("chunk", [1, 2, 8, 64])
def test_linear_whatever_the_chunk(x, chunk):
    """The tokens that are taken at once change nothing."""
    one, other = (projection_of(decay=0.9, chunk=size)[::2] for size in (4, chunk))

    torch.testing.assert_close(one[0](x, one[1]), other[0](x, other[1]))


def test_linear_is_a_change_of_weights(x):
    """What joins the input is what `gamma W OA` would add to W, with `OA = sum o^T a W_c`."""
    qkv, _, use = projection_of(rank=4, gamma=0.5)
    t = 6
    for b in range(B):
        OA = torch.zeros(C, C, dtype=torch.float64)
        for s in range(t):
            OA += torch.outer(rms(qkv.value @ x[b, s]), qkv.query.T @ rms(qkv.key @ x[b, s])) / t
        W = qkv.weight + 0.5 / math.sqrt(4) * qkv.weight @ OA

        torch.testing.assert_close(qkv(x, use)[b, t], W @ x[b, t] + qkv.bias, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("decay", [1.0, 0.8])
@pytest.mark.parametrize("rule", RULES)
def test_chunk(x, rule, decay):
    """Every chunk's matrix is the rule's, by the statistic of the chunks before it."""
    S, R = 4, 5
    fields = {"form": "chunk", "rule": rule, "decay": decay, "chunk": S, "rank": R, "gamma": 0.9}
    qkv, _, use = projection_of(**fields)
    want = torch.empty(B, T, 3 * C, dtype=torch.float64)
    W = qkv.weight
    for b in range(B):
        for t in range(T):
            begin = t // S * S
            A, total = torch.zeros(R, R, dtype=torch.float64), 0.0
            for s in range(begin):
                age = decay ** (begin - 1 - s)
                A = A + age * torch.outer(rms(qkv.value @ x[b, s]), rms(qkv.key @ x[b, s]))
                total += age
            A = torch.stack([rms(row) for row in A / max(total, 1.0)])
            M = qkv.mix + 0.9 * qkv.basis @ A @ qkv.basis.T / math.sqrt(C)
            Y = None if qkv.transform is None else qkv.transform @ M
            if rule == "swap":
                new = scaled(Y * F.silu(W) + W, C)
            elif rule == "oa":
                new = scaled(scaled(W @ M, 3 * C) * F.silu(W) + W, C)
            elif rule == "bilinear":
                new = scaled((F.silu(W) * Y) @ (W.T @ Y / math.sqrt(C)) + W, C)
            else:
                new = 0.7 * scaled(W + F.silu(W @ M) @ qkv.back.T, C)
            want[b, t] = new @ x[b, t] + qkv.bias

    torch.testing.assert_close(qkv(x, use), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("fields", [{}, {"decay": 0.7, "chunk": 4}], ids=["mean", "decay"])
@pytest.mark.parametrize("form", ["linear", "chunk"])
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_splits(x, form, fields, split):
    """Any split into cached calls gives what one call gives, in float64 to rounding."""
    qkv, source, use = projection_of(form=form, **fields)
    state = qkv.new_state(B, T, x.device, x.dtype)
    pieces, offset = [], 0
    for piece in x.split(split, dim=1):
        inside = Use(torch.arange(T), offset, use.positional, source, state=state)
        pieces.append(qkv(piece, inside))
        offset += piece.shape[1]

    torch.testing.assert_close(torch.cat(pieces, 1), qkv(x, use), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", ["linear", "chunk"])
def test_what_a_token_sees(x, form):
    """A token changes later tokens of its sequence, and in the chunk form later chunks alone."""
    qkv, _, use = projection_of(form=form, chunk=4)
    changed = x.clone()
    changed[0, 5] += 1
    moved = (qkv(changed, use) - qkv(x, use)).abs().amax(-1) > 1e-9

    first = 6 if form == "linear" else 8
    assert moved[0].tolist() == [t == 5 or t >= first for t in range(T)]
    assert not moved[1].any()


def test_the_first_projection_alone():
    """One projection of each block has a memory: the first that its attention asks for."""
    block = {"attention": "mla", "ffn": "swiglu"}
    model = strawberry.build(
        tiny({"repeat": 2, **block}, weights="fast_weights", positional="rope")
    )
    having = [name[:-6] for name, _ in model.named_parameters() if name.endswith(".gamma")]

    assert having == ["stack.nodes.0.attention.q", "stack.nodes.1.attention.q"]


def test_no_attention_no_memory():
    """A block without attention has plain matrices."""
    model = strawberry.build(tiny({"ffn": "swiglu"}, weights="fast_weights", positional="none"))
    assert not [name for name, _ in model.named_parameters() if name.endswith(".gamma")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "oa"}, "the linear form has no chunks"),
        ({"chunk": 6}, "must be a power of two"),
        ({"form": "chunk", "chunk": 6, "rank": 0}, "rank"),
    ],
)
def test_refused(fields, message):
    """A rule for the linear form, or a chunk that can't be halved, is refused at its place."""
    with pytest.raises(RecipeError, match=message):
        strawberry.build(tiny({"attention": "mha"}, weights={"use": "fast_weights", **fields}))


def test_chunks_can_not_keep_documents_apart():
    """The chunk form is refused with a document mask; nested sources too."""
    chunks = {"use": "fast_weights", "form": "chunk"}
    for weights in (chunks, {"use": "step_lora", "of": chunks}):
        stack = [{"recur": 2, "weights": weights, "attention": "mha"}]
        recipe = recipe_of(
            {**TINY, "positional": "rope", "stack": stack}, train={"document_mask": True}
        )
        with pytest.raises(RecipeError, match="can't separate documents"):
            strawberry.build(recipe)
