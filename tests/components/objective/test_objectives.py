"""Each objective beside a literal loop over tokens, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import strawberry
from strawberry.contracts import Batch, Learned, Objective, Prediction
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.accounting import account
from strawberry.model.language_model import LanguageModel
from strawberry.referee.losses import bound_breach
from tests.support import TINY, recipe_of

BLOCK = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
BOTH = {"attention": {"use": "mha", "n_head": 2, "causal": False}, "ffn": "swiglu"}


def model_of(objective: Any, *stack: Any, **model: Any) -> LanguageModel:
    """A model in float64, its weights away from their start, so that no norm hides a mistake."""
    recipe = recipe_of({**TINY, "stack": list(stack), **model}, objective=objective)
    built = strawberry.build(recipe).double().train()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return built


def example() -> tuple[Tensor, Tensor]:
    """Ids and targets (2, 12), some of which are not predicted."""
    torch.manual_seed(0)
    text = torch.randint(60, (2, 13))
    ids, targets = text[:, :-1], text[:, 1:].clone()
    targets[0, 2] = targets[1, 7] = -1
    return ids, targets


def nats(model: LanguageModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """The sum over targets of -log p, one by one."""
    total = torch.zeros((), dtype=torch.float64)
    for b, t in (targets >= 0).nonzero().tolist():
        logits = hidden[b, t] @ model.head_weight.T
        total = total + logits.logsumexp(0) - logits[targets[b, t]]
    return total


def same(model: LanguageModel, expected: Tensor) -> None:
    """The model's loss, and its gradient, are the expected ones."""
    ids, targets = example()
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = model.loss(ids, targets)
    torch.testing.assert_close(loss.total, expected)
    ours = torch.autograd.grad(loss.total, parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def through(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """The residual stream after each block of a plain stack."""
    x, states, use = model.embed(ids, model.use(ids)), [], model.use(ids)
    for block in model.stack.nodes:
        x = x + block.attention(block.attention_norm(x), use)
        x = x + block.ffn(block.ffn_norm(x), use)
        states.append(x)
    return states


@pytest.mark.parametrize("weight", [None, 0.5])
def test_parallel_heads(weight: float | None) -> None:
    """Gloeckle et al.'s sum over the next n tokens, whose heads read what the last block reads."""
    model = model_of({"use": "multi_token", "tokens": 3, "weight": weight}, {"repeat": 2, **BLOCK})
    ids, targets = example()
    states = through(model, ids)
    count = int((targets >= 0).sum())
    total = nats(model, model.norm(states[-1]), targets)
    for k in (2, 3):
        y, _ = model.objective.blocks[k - 2](states[-2], model.use(ids))
        shifted = torch.full_like(targets, -1)
        for t in range(targets.shape[1] - k + 1):
            shifted[:, t] = targets[:, t + k - 1]
        total = total + (2 if weight is None else weight) / 2 * nats(model, model.norm(y), shifted)
    same(model, total / count)


def test_chained_modules() -> None:
    """DeepSeek-V3's eq. 21 to 25: each reads the state before it and the token that it is at."""
    model = model_of({"use": "multi_token", "tokens": 3, "form": "chained"}, {"repeat": 2, **BLOCK})
    ids, targets = example()
    count, head = int((targets >= 0).sum()), model.objective
    x = through(model, ids)[-1]
    total = nats(model, model.norm(x), targets)
    for k in (1, 2):
        tokens, later = torch.zeros_like(ids), torch.full_like(targets, -1)
        tokens[:, :-k], later[:, :-k] = ids[:, k:], targets[:, k:]
        both = torch.cat(
            (
                head.state_norms[k - 1](x),
                head.token_norms[k - 1](model.embed(tokens, model.use(tokens))),
            ),
            -1,
        )
        merged = F.linear(both, head.merges[k - 1].weight)
        x, _ = head.blocks[k - 1](merged, model.use(ids))
        total = total + 0.3 / 2 * nats(model, model.norm(x), later)
    same(model, total / count)


@pytest.mark.parametrize("every", [1, 2])
def test_early_exits(every: int) -> None:
    """LayerSkip's scales: e(l) grows with the square of l, the last block's by its depth beside."""
    objective = {"use": "early_exit", "scale": 0.3, "every": every}
    model = model_of(objective, {"repeat": 5, **BLOCK})
    ids, targets = example()
    states, scales = through(model, ids), {}
    for layer in range(5):
        if layer == 4:
            scales[layer] = 4 + 0.3 * sum(range(4))
        elif (4 - layer) % every == 0:
            scales[layer] = 0.3 * sum(range(layer + 1))
    total = sum(
        e * nats(model, model.norm(states[layer]), targets) for layer, e in scales.items()
    ) / sum(scales.values())
    same(model, total / int((targets >= 0).sum()))


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("keys", ["own", "first"])
def test_deep_supervision(cut: bool, keys: str) -> None:
    """A loss after each step, and with `cut` no gradient from one step to the one before."""
    objective = {"use": "deep_supervision", "growth": 2.0, "cut": cut}
    model = model_of(objective, {"recur": 3, "keys": keys, "stack": [BLOCK]})
    ids, targets = example()
    (recursion,) = model.stack.nodes
    (block,) = recursion.nodes
    use, x, total = (
        model.use(ids),
        model.embed(ids, model.use(ids)),
        torch.zeros((), dtype=torch.float64),
    )
    kept: Tensor | None = None
    for step, weight in enumerate((1, 2, 4)):
        x = x.detach() if cut and step else x
        h = block.attention_norm(x)
        qkv = F.linear(h, block.attention.qkv.weight).unflatten(-1, (6, -1)).transpose(1, 2)
        q, kv = qkv[:, :2], qkv[:, 2:]
        if keys == "first":
            kept = kv if kept is None else (kept.detach() if cut else kept)
            kv = kept
        y = F.scaled_dot_product_attention(q, kv[:, :2], kv[:, 2:], is_causal=True)
        x = x + F.linear(y.transpose(1, 2).flatten(2), block.attention.out.weight)
        x = x + block.ffn(block.ffn_norm(x), use)
        total = total + weight / 7 * nats(model, model.norm(x), targets)
    same(model, total / int((targets >= 0).sum()))


def test_masked_diffusion_learns_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaDA's eq. 3 with the masks that were drawn: 1 / t for each masked token."""
    model = model_of("masked_diffusion", {"repeat": 2, **BOTH})
    ids, targets = example()
    draws = [torch.rand(2, 1), torch.rand(2, 12)]
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws.pop(0))
    t, noise = (draw.clone() for draw in draws)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(2):
        p = 1e-3 + (1 - 1e-3) * t[b, 0].double()
        clean = torch.cat((ids[b, 1:], torch.tensor([60])))
        clean = torch.where(targets[b] >= 0, targets[b], clean)
        masked = (noise[b] < p) & (targets[b] >= 0)
        hidden = model.hidden(torch.where(masked, 60, clean)[None])
        total = total + nats(model, hidden, torch.where(masked, targets[b], -1)[None]) / p
    loss = model.loss(ids, targets).total
    torch.testing.assert_close(loss, total / int((targets >= 0).sum()), rtol=1e-6, atol=1e-6)


def test_masked_diffusion_is_judged_by_a_bound() -> None:
    """What evaluation reports is above the nats of the best order, and exact for one token."""
    model = model_of({"use": "masked_diffusion", "draws": 64}, {"repeat": 2, **BOTH}).eval()
    ids, targets = example()
    one = torch.full_like(targets, -1)
    one[:, 5] = targets[:, 5]
    clean = torch.cat((ids[:, 1:], torch.full((2, 1), 60)), 1)
    clean[:, 5] = 60
    expected = [nats(model, model.hidden(clean)[b : b + 1], one[b : b + 1]) for b in range(2)]
    torch.testing.assert_close(
        model.measure(ids, one).rows, torch.stack(expected), rtol=1e-6, atol=1e-6
    )
    # A model that knows nothing has the nats of a draw from the vocabulary.
    with torch.no_grad():
        model.embedding.weight.zero_()
    told = model.measure(ids, targets).rows
    counts = (targets >= 0).sum(1).double()
    torch.testing.assert_close(told, counts * math.log(61), rtol=1e-5, atol=1e-5)


def test_evaluation_noise_is_the_rows() -> None:
    """A row's bound is the same alone, beside others and again; another row has other masks."""
    model = model_of("masked_diffusion", {"repeat": 2, **BOTH}).eval()
    ids, targets = example()
    both = model.measure(ids, targets, torch.tensor([7, 8])).rows
    alone = model.measure(ids[1:], targets[1:], torch.tensor([8])).rows
    torch.testing.assert_close(both[1:], alone)
    other = model.measure(ids[1:], targets[1:], torch.tensor([9])).rows
    assert not torch.allclose(alone, other)


@pytest.mark.parametrize(
    ("objective", "stack", "message"),
    [
        ({"use": "multi_token"}, [BLOCK], "use `chained`"),
        ({"use": "multi_token", "tokens": 16}, [{"repeat": 2, **BLOCK}], "no 16 tokens ahead"),
        ("early_exit", [{"repeat": 2, **BLOCK}], "at least 3 blocks"),
        ("deep_supervision", [{"repeat": 3, **BLOCK}], "needs a `recur`"),
        ("masked_diffusion", [BOTH, BLOCK], "`mha` with `causal: false`"),
        ({"use": "masked_diffusion", "mask_id": 61}, [BOTH], "outside of 61 ids"),
    ],
)
def test_what_cannot_be_is_refused(objective: Any, stack: list[Any], message: str) -> None:
    """At its place in the recipe."""
    with pytest.raises(RecipeError, match=message):
        strawberry.build(recipe_of({**TINY, "stack": stack}, objective=objective))


def test_a_stack_of_which_one_block_runs() -> None:
    """As a curriculum has it: exits have none before it, and parallel heads say what they need."""
    exits, heads, plain = (
        model_of(name, *[BLOCK] * 3) for name in ("early_exit", "multi_token", "next_token")
    )
    for model in (exits, heads, plain):
        model.stack.set_depth(1)
    torch.testing.assert_close(exits.loss(*example()).total, plain.loss(*example()).total)
    with pytest.raises(StrawberryError, match="let two run, or use `form: chained`"):
        heads.loss(*example())


@pytest.mark.parametrize("objective", ["multi_token", "early_exit", "deep_supervision"])
def test_weights_begin_alike_and_evaluation_is_the_next_token(objective: str) -> None:
    """Whatever is learned, a seed's model is the same, and so is what is measured of it."""
    stack = [{"repeat": 2, **BLOCK}, {"recur": 2, **BLOCK}]
    plain, other = (
        strawberry.build(recipe_of({**TINY, "stack": stack}, objective=o)).eval()
        for o in ("next_token", objective)
    )
    ids, targets = example()
    assert torch.equal(plain.measure(ids, targets).rows, other.measure(ids, targets).rows)
    extra = set(other.state_dict()) - set(plain.state_dict())
    assert all(name.startswith("objective.") for name in extra)


def test_what_a_recipe_costs_counts_its_objective() -> None:
    """Heads and blocks of its own in training alone, a teacher's pass, a second pass."""

    def flops(objective: Any) -> tuple[float, float]:
        report = account(
            recipe_of({**TINY, "stack": [{"repeat": 4, **BLOCK}]}, objective=objective)
        )
        return report.flops_forward_per_token, report.flops_training_per_token

    forward, training = flops("next_token")
    head, block = 2 * 61 * 16, (forward - 2 * 61 * 16) / 4
    assert flops({"use": "multi_token", "tokens": 3}) == (
        forward, pytest.approx(training + 2 * 3 * (head + block)),
    )  # fmt: skip
    assert flops("early_exit") == (forward, pytest.approx(training + 2 * 3 * head))


class Leaky(Objective):
    """Scores each token by states that have read it."""

    left_to_right = False

    def forward(self, batch: Batch) -> Learned:
        """The next token's."""
        loss = batch.cross_entropy(batch.states().hidden)
        return Learned(loss.total, loss.cross_entropy)

    def predictions(self, batch: Batch) -> Any:
        """One a token."""
        yield Prediction(batch.states(batch.targets.clamp(min=0)).hidden, batch.targets)


class Light(Leaky):
    """Counts each token less than once."""

    def predictions(self, batch: Batch) -> Any:
        """One a token."""
        weights = torch.full(batch.ids.shape, 0.9, dtype=torch.float64)
        blank = torch.zeros_like(batch.ids)
        yield Prediction(batch.states(blank).hidden, batch.targets, weights)


def test_a_bound_that_is_none_is_found() -> None:
    """States that know what they predict, and weights below the targets; diffusion has neither."""
    model = model_of("masked_diffusion", {"repeat": 2, **BOTH}).eval()
    ids = example()[0]

    def breach() -> Any:
        return bound_breach(model.predictions, ids, 61, torch.float64, causal=False)

    assert breach() is None
    model.objective = Leaky()
    assert "states change with the targets" in str(breach())
    model.objective = Light()
    assert "the weights of a row's targets sum to" in str(breach())
