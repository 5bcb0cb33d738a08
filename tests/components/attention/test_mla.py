"""Multi-head latent attention against its equations, and its two forms against each other."""

import math

import pytest
import torch

import strawberry
from strawberry.components.attention.mla import MultiHeadLatentAttention
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from strawberry.model.accounting import account
from tests.support import tiny

B, T, C, H = 2, 11, 16, 2
FORMS = {
    "default": {},
    "compressed": {"q_rank": 6},
    "wide_values": {"q_rank": 6, "kv_rank": 5, "nope_width": 6, "rope_width": 4, "v_width": 10},
    "narrow_values": {"kv_rank": 12, "v_width": 3, "rope_width": 2},
}
SPLITS = [[T], [1] * T, [5, 1, 1, 4], [4, 4, 3]]


def model_of(form, positional="rope", **model):
    """A one-block model in float64, with random gains and biases."""
    fields = {"use": "mla", "n_head": H, **FORMS[form]}
    built = strawberry.build(tiny({"attention": fields}, positional=positional, **model))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    return built.double().eval()


def mixer_of(form, positional="rope", **model):
    """The mixer of such a model, and a use of it without a cache."""
    built = model_of(form, positional, **model)
    visit = built.visits()[0]
    return visit.block.attention, Use(torch.arange(T), 0, built.positional, visit.weights)


@pytest.fixture
def x():
    return torch.randn(B, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def rms(x, gain):
    return x / torch.sqrt((x**2).mean() + 1e-6) * gain


def turned(x, position):
    """The pair (i, i + P/2), turned by position * 10000^(-2i/P)."""
    half = len(x) // 2
    pairs = []
    for i in range(half):
        angle = position * 10000 ** (-i / half)
        a, b = x[i], x[i + half]
        cos, sin = math.cos(angle), math.sin(angle)
        pairs.append((a * cos - b * sin, b * cos + a * sin))
    return torch.stack([a for a, _ in pairs] + [b for _, b in pairs])


def affine(x, projection):
    y = projection.weight @ x
    return y if projection.bias is None else y + projection.bias


def literal(mixer, x, turn):
    """Equations 9 to 19 for one sequence (T, C), head by head, query by query."""
    N, P, E, R = mixer.nope_width, mixer.rope_width, mixer.v_width, mixer.kv_rank
    queries, latents, shared = [], [], []
    for t in range(T):
        source = x[t]
        if mixer.q_down is not None:
            source = rms(affine(source, mixer.q_down), mixer.q_norm.weight)
        queries.append(affine(source, mixer.q).view(H, N + P))
        down = affine(x[t], mixer.kv_down)
        latents.append(rms(down[:R], mixer.kv_norm.weight))
        shared.append(turn(down[R:], t))
    up = mixer.kv_up.weight.view(H, N + E, R)
    rows = []
    for t in range(T):
        heads = []
        for h in range(H):
            q = torch.cat([queries[t][h, :N], turn(queries[t][h, N:], t)])
            scores, values = [], []
            for s in range(t + 1):
                k = torch.cat([up[h, :N] @ latents[s], shared[s]])
                scores.append((q @ k) / math.sqrt(N + P))
                values.append(up[h, N:] @ latents[s])
            weights = torch.stack(scores).exp()
            heads.append(sum(w * v for w, v in zip(weights, values, strict=True)) / weights.sum())
        rows.append(affine(torch.cat(heads), mixer.out))
    return torch.stack(rows)


@pytest.mark.parametrize("positional", ["rope", "none"])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("form", FORMS)
def test_equations(x, form, bias, positional):
    """Latents, decoupled rotation, scores and values, written out; with gradients."""
    mixer, use = mixer_of(form, positional, bias=bias)
    wanted = tuple(mixer.parameters())
    turn = turned if positional == "rope" else (lambda v, t: v)
    y = mixer(x, use)
    expected = torch.stack([literal(mixer, row, turn) for row in x])

    # The rotation's angles are float32.
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum(), wanted),
        torch.autograd.grad(expected.square().sum(), wanted),
        rtol=1e-4,
        atol=1e-5,
    )


def cached(mixer, x, use, split):
    """The outputs of cached calls of these lengths."""
    state = mixer.new_state(B, T, x.device, x.dtype)
    pieces, offset = [], 0
    for piece in x.split(split, dim=1):
        positions = torch.arange(offset, offset + piece.shape[1])
        pieces.append(
            mixer(piece, Use(positions, offset, use.positional, use.weights, state=state))
        )
        offset += piece.shape[1]
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("absorbs", [True, False, None], ids=["absorbed", "plain", "cheaper"])
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_both_forms_decode_alike(x, form, absorbs, split, monkeypatch):
    """Absorbed, plain, or whichever is cheaper: any split of calls gives the parallel form."""
    mixer, use = mixer_of(form, bias=True)
    expected = mixer(x, use)
    if absorbs is not None:
        monkeypatch.setattr(mixer, "absorbs", lambda T, S: absorbs)

    torch.testing.assert_close(cached(mixer, x, use, split), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("absorbs", [True, False], ids=["absorbed", "plain"])
@torch.no_grad()
def test_shared_weights(x, absorbs, monkeypatch):
    """The absorbed form takes its matrices from a shared source as well as from its own."""
    mixer, use = mixer_of("compressed", weights={"use": "factorized", "rank": 3})
    expected = mixer(x, use)
    monkeypatch.setattr(mixer, "absorbs", lambda T, S: absorbs)

    torch.testing.assert_close(cached(mixer, x, use, [6, 1, 4]), expected, rtol=1e-9, atol=1e-10)


@torch.no_grad()
def test_it_decodes_in_half_precision():
    """A bfloat16 model, and autocast over a float32 cache, decode close to the exact logits."""
    model = model_of("compressed").float()
    idx = torch.randint(61, (2, T), generator=torch.Generator().manual_seed(5))
    exact = model(idx)

    def decode():
        cache = model.new_cache(batch=2, length=T)
        return torch.cat([model(piece, cache=cache) for piece in idx.split(1, dim=1)], 1).float()

    with torch.autocast("cpu", torch.bfloat16):
        cast = decode()
    model.to(torch.bfloat16)
    half = decode()

    assert (cast - exact).abs().max() < 0.1 * exact.abs().max()
    assert (half - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_cache_is_the_latent():
    """A token leaves kv_rank + rope_width numbers behind, however many heads there are."""
    for heads in (2, 8):
        fields = {"use": "mla", "n_head": heads, "kv_rank": 5, "nope_width": 6, "rope_width": 4}
        cost = account(tiny({"attention": fields}, positional="rope")).parts[0].cost

        assert cost.cache_bytes_per_token == 4 * (5 + 4)
        assert cost.cache_fixed_bytes == 0


def test_flops():
    """The forward pass costs what its projections and products of queries, keys and values do."""
    fields = {"use": "mla", "n_head": H, **FORMS["wide_values"]}
    report = account(tiny({"attention": fields}, positional="rope", block_size=32))
    projections = C * 6 + 6 * H * 10 + C * (5 + 4) + 5 * H * (6 + 10) + H * 10 * C
    products = 32 * H * (6 + 4 + 10)

    assert report.parts[0].cost.flops_forward == 2 * 32 * (projections + products)


def test_the_cheaper_form():
    """One token over a long cache is absorbed, a long prefill is not; the choice is the count."""

    def counted(mixer, use, S, count, absorbed):
        def multiplications(function):
            with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
                function()
            return counter.get_total_flops()

        q = torch.empty(1, H, count, mixer.nope_width, dtype=torch.float64, device="meta")
        turned_q = torch.empty(1, H, count, mixer.rope_width, dtype=torch.float64, device="meta")
        latent = torch.empty(1, S, mixer.kv_rank, dtype=torch.float64, device="meta")
        key = torch.empty(1, S, mixer.rope_width, dtype=torch.float64, device="meta")
        mix = mixer._absorbed if absorbed else mixer._plain
        return multiplications(lambda: mix(q, turned_q, latent, key, use))

    for form in FORMS:
        mixer, use = mixer_of(form)
        mixer = mixer.to("meta")
        for count, S in ((1, 1), (1, 100), (10, 100), (100, 100), (400, 400)):
            absorbed, plain = (counted(mixer, use, S, count, choice) for choice in (True, False))
            assert mixer.absorbs(count, S) == (absorbed < plain), (form, count, S)
    wide = strawberry.build(tiny({"attention": {"use": "mla", "kv_rank": 16}}, n_embd=64))
    mixer = wide.visits()[0].block.attention
    assert isinstance(mixer, MultiHeadLatentAttention)
    assert mixer.absorbs(1, 1000)
    assert (
        not strawberry.build(tiny({"attention": {"use": "mla", "kv_rank": 64}}, n_embd=64))
        .visits()[0]
        .block.attention.absorbs(1000, 1000)
    )


@torch.no_grad()
def test_documents_are_kept_apart(x):
    """A token sees those of its own document alone: each gives what it would by itself."""
    mixer, use = mixer_of("compressed", "none")
    documents = torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [1] * 2])
    y = mixer(x, Use(use.positions, 0, use.positional, use.weights, documents=documents))
    for b, border in ((0, 4), (1, 9)):
        for part in (slice(0, border), slice(border, T)):
            alone = x[b : b + 1, part]
            positions = torch.arange(alone.shape[1])
            expected = mixer(alone, Use(positions, 0, use.positional, use.weights))

            torch.testing.assert_close(y[b : b + 1, part], expected)


@pytest.mark.parametrize(
    ("fields", "positional", "message"),
    [
        ({"rope_width": 3}, "rope", "even head width, got 3"),
        ({"n_head": 3}, "rope", "3 heads"),
    ],
    ids=str,
)
def test_refusals(fields, positional, message):
    """Widths that don't fit are refused where they stand."""
    with pytest.raises(RecipeError, match=message):
        strawberry.build(tiny({"attention": {"use": "mla", **fields}}, positional=positional))


def test_an_odd_rotated_width_without_rotation():
    """Where nothing rotates, the decoupled part may have any width."""
    fields = {"use": "mla", "rope_width": 3}

    assert strawberry.build(tiny({"attention": fields}, positional="none"))
