"""Routing weights, losses and the balancing bias, each written out from its equation."""

import math

import pytest
import torch

from strawberry.components.routing import ExpertRouter, RouterLosses, max_violation

N, C, E = 9, 6, 5


@pytest.fixture
def x():
    return torch.randn(N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def router_of(active=2, **fields):
    """A router in float64 with random matrices."""
    router = ExpertRouter(C, E, active, **fields).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in router.parameters():
            parameter.normal_(generator=generator)
    return router.requires_grad_(False)


def logits_of(x, weight):
    return [[float(row @ token) for row in weight] for token in x]


def softmax(h):
    return [math.exp(v) / sum(map(math.exp, h)) for v in h]


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def best(values, k):
    """The indices of the k largest, largest first."""
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def variation(values):
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values) / (mean**2 + 1e-10)


def value(choice, name):
    (term,) = [t for t in choice.terms if t.name == name]
    return float(term.value)


@pytest.mark.parametrize(
    ("active", "normalize"), [(1, False), (2, False), (2, True), (3, True), (5, True)]
)
@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_choice(x, active, normalize, gate):
    """The k best experts of each token, and their gates."""
    router = router_of(active, gate=gate, normalize=normalize, scale=1.5)
    choice = router(x)
    for t, h in enumerate(logits_of(x, router.weight)):
        scores = softmax(h) if gate == "softmax" else [sigmoid(v) for v in h]
        chosen = best(scores, active)
        total = sum(scores[i] for i in chosen) if normalize else 1.0

        assert choice.expert[t].tolist() == chosen
        assert choice.gate[t].tolist() == pytest.approx([1.5 * scores[i] / total for i in chosen])
    flat = choice.expert.flatten().tolist()
    assert choice.counts.tolist() == [flat.count(i) for i in range(E)]


def test_the_bias_chooses_and_does_not_weigh(x):
    """With a bias the best of `score + bias` are chosen, and gates are those of the scores."""
    router = router_of(gate="sigmoid", bias_rate=0.1)
    router.bias.copy_(torch.tensor([2.0, 0, 0, 0, -2]))
    choice = router(x)
    for t, h in enumerate(logits_of(x, router.weight)):
        scores = [sigmoid(v) for v in h]
        chosen = best([s + float(b) for s, b in zip(scores, router.bias, strict=True)], 2)
        total = sum(scores[i] for i in chosen)

        assert chosen[0] == 0
        assert choice.expert[t].tolist() == chosen
        assert choice.gate[t].tolist() == pytest.approx([scores[i] / total for i in chosen])


@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_balance_loss(x, gate):
    """Switch: `E sum_i f_i P_i`, over shares that sum to 1 for each token."""
    router = router_of(gate=gate, losses=RouterLosses(balance=0.5))
    choice = router(x)
    shares, chosen = [], []
    for h in logits_of(x, router.weight):
        scores = softmax(h) if gate == "softmax" else [sigmoid(v) for v in h]
        shares.append([s / sum(scores) for s in scores])
        chosen += best(scores, 2)
    expected = E * sum(
        chosen.count(i) / (2 * N) * sum(share[i] for share in shares) / N for i in range(E)
    )

    assert value(choice, "moe_balance") == pytest.approx(expected)
    assert [t.weight for t in choice.terms if t.name == "moe_balance"] == [0.5]


def test_z_loss(x):
    """The mean over tokens of logsumexp squared."""
    router = router_of(losses=RouterLosses(z=1.0))
    rows = logits_of(x, router.weight)
    expected = sum(math.log(sum(map(math.exp, h))) ** 2 for h in rows) / N

    assert value(router(x), "moe_z") == pytest.approx(expected)


def test_importance_loss(x):
    """The squared variation of the sums of gates."""
    router = router_of(losses=RouterLosses(importance=1.0))
    sums = [0.0] * E
    for h in logits_of(x, router.weight):
        chosen = best(h, 2)
        for i, g in zip(chosen, softmax([h[i] for i in chosen]), strict=True):
            sums[i] += g

    assert value(router(x), "moe_importance") == pytest.approx(variation(sums))


def test_noisy_top_k(x):
    """Noise of learned width decides in training; gates are a softmax over what was kept."""
    router = router_of(noisy=True, losses=RouterLosses(load=1.0))
    torch.manual_seed(11)
    choice = router(x)
    torch.manual_seed(11)
    noise = torch.randn(N, E, dtype=torch.float64)
    loads = [0.0] * E
    for t, (h, n) in enumerate(
        zip(logits_of(x, router.weight), logits_of(x, router.noise), strict=True)
    ):
        spread = [math.log1p(math.exp(v)) for v in n]
        noisy = [v + float(noise[t, i]) * s for i, (v, s) in enumerate(zip(h, spread, strict=True))]
        chosen = best(noisy, 2)

        assert choice.expert[t].tolist() == chosen
        assert choice.gate[t].tolist() == pytest.approx(softmax([noisy[i] for i in chosen]))
        for i in range(E):
            others = sorted((v for j, v in enumerate(noisy) if j != i), reverse=True)
            z = (h[i] - others[1]) / spread[i]
            loads[i] += 0.5 * (1 + math.erf(z / math.sqrt(2)))

    assert value(choice, "moe_load") == pytest.approx(variation(loads))


def test_noise_is_for_training(x):
    """In evaluation the choice is that of the logits alone, and there are no terms."""
    router = router_of(noisy=True).eval()
    choice = router(x)

    assert choice.terms == ()
    assert choice.expert.tolist() == [best(h, 2) for h in logits_of(x, router.weight)]


def test_bias_rule(x):
    """After a step each bias moves by the rate towards an even load, and their mean is 0."""
    router = router_of(gate="sigmoid", bias_rate=0.01)
    router.bias.copy_(torch.tensor([0.3, -0.1, 0.0, -0.3, 0.1]))
    start = router.bias.tolist()
    counts = router(x).counts + router(x * 2).counts
    assert router.bias.tolist() == start

    router.after_step()

    mean = float(counts.sum()) / E
    moved = [
        b + 0.01 * ((c < mean) - (c > mean)) for b, c in zip(start, counts.tolist(), strict=True)
    ]
    centre = sum(moved) / E
    assert router.bias.tolist() == pytest.approx([b - centre for b in moved], abs=1e-6)
    assert not router.load.any()


def test_evaluation_leaves_the_load_alone(x):
    """Tokens seen in evaluation don't count for the bias."""
    router = router_of(bias_rate=0.01).eval()
    router(x)

    assert not router.load.any()


def test_the_bias_evens_the_load():
    """A router that prefers one expert learns to use all of them."""
    torch.manual_seed(0)
    router = ExpertRouter(C, E, 2, gate="sigmoid", bias_rate=0.01)
    x = torch.randn(200, C)
    x[:, 0] = 1
    with torch.no_grad():
        router.weight.normal_(std=0.3)
        router.weight[:, 0] = torch.tensor([2.0, 1, 0, -1, -2])
    before = float(max_violation(router(x).counts))
    for _ in range(150):
        router(x)
        router.after_step()

    assert before > 1.4
    assert max_violation(router(x).counts) < 0.4


def test_metrics():
    """The fullest expert above its share, and the entropy of the distribution, both unweighted."""
    assert max_violation(torch.tensor([6, 2, 2, 2])) == pytest.approx(1.0)
    router = ExpertRouter(C, E, 2)
    with torch.no_grad():
        router.weight.zero_()
    choice = router(torch.randn(N, C))

    assert value(choice, "moe_entropy") == pytest.approx(math.log(E))
    assert all(term.weight == 0 for term in choice.terms)


def test_precision():
    """Float32 inside, whatever the model's; the bias stays in float32 when the model is cast."""
    router = ExpertRouter(C, E, 2, gate="sigmoid", bias_rate=1e-3).to(torch.bfloat16)
    router.bias.fill_(1.0009)
    router.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        choice = router(torch.randn(N, C, dtype=torch.bfloat16))

    assert choice.gate.dtype == torch.float32
    assert router.bias.dtype == torch.float32
    assert float(router.bias[0]) == pytest.approx(1.0009)
