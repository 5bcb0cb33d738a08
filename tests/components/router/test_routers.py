"""The routers against the paper's definitions, token by token."""

import math

import pytest
import torch

import strawberry
from strawberry.components.router.expert_choice import ExpertChoiceRouter
from strawberry.components.router.threshold import ThresholdRouter
from strawberry.components.router.token_choice import TokenChoiceRouter
from strawberry.contracts import RouterSite
from strawberry.generation import load_run
from tests.support import TINY, recipe_of

B, T, C, R = 2, 12, 8, 3
SITE = RouterSite(C, R)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(B, T, C)


@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_token_choice(x, gate):
    """The likeliest depth, its probability as the gate, and `H + p f(H)` on leaving."""
    router = TokenChoiceRouter(SITE, gate=gate).eval()
    routed = router.route(x, 0, {}, T, None)
    y = torch.randn_like(x)
    assert routed.go.all()
    assert routed.size == T
    for b in range(B):
        for t in range(T):
            logits = router.depths.weight @ x[b, t]
            depth = int(logits.argmax())
            p = logits.softmax(0)[depth] if gate == "softmax" else 0.1 * logits[depth].sigmoid()
            for step in range(R):
                goes = router.route(x, step, routed.carried, T, None).go[b, t]
                merged = router.merge(x, y, step, routed.carried)[b, t]
                expected = x[b, t] + p * y[b, t] if step == depth else y[b, t]

                assert goes == (step <= depth)
                torch.testing.assert_close(merged, expected)


def test_token_choice_balance():
    """The loss is Switch's over depths, 1 where they are even; the bias counts for choices."""
    router = TokenChoiceRouter(SITE, balance_loss=0.5, z_loss=0.0, bias_rate=0.1).train()
    (balance,) = [t for t in router.route(torch.zeros(1, 6, C), 0, {}, 6, None).terms if t.weight]
    router.depths.after_step()

    assert balance.name == "depth_balance"
    assert balance.weight == 0.5
    assert balance.value.item() == pytest.approx(1.0)  # the mean probabilities are even
    assert router.depths.bias[0] < router.depths.bias[1]  # all six chose the first of equals


def test_expert_choice_takes_the_top(x):
    """Step r takes the top share of the sequence among those that are left."""
    router = ExpertChoiceRouter(SITE, capacity=[1.0, 0.5, 0.25]).train()
    left = x
    for step, size in enumerate((12, 6, 3)):
        routed = router.route(left, step, {}, T, None)
        logits = left @ router.weight[step]
        for b in range(B):
            best = logits[b].argsort(descending=True)[:size].sort().values

            assert torch.equal(routed.go[b].nonzero()[:, 0], best)
        torch.testing.assert_close(routed.carried["gate"], 0.1 * logits.sigmoid())
        assert routed.size == size
        left = left[routed.go].view(B, size, C)


def test_expert_choice_goes_by_a_threshold_in_evaluation(x):
    """There a token goes if its own score is above one half, whatever the others are."""
    router = ExpertChoiceRouter(SITE).eval()
    routed = router.route(x, 1, {}, T, None)

    assert torch.equal(routed.go, (x @ router.weight[1]).sigmoid() > 0.5)
    assert routed.size is None
    assert router.causal
    assert router.route(x, 0, {}, T, None).go.all()  # it takes all in training too
    assert not router.train().causal


@pytest.mark.parametrize("learn", ["aux_loss", "aux_router"])
def test_expert_choice_learns_the_threshold(x, learn):
    """The auxiliary loss is the cross-entropy of being chosen; a second router has it to itself."""
    router = ExpertChoiceRouter(SITE, learn=learn, aux_loss=0.01).train()
    routed = router.route(x, 1, {}, T, None)
    (term,) = [t for t in routed.terms if t.weight]
    logits = x @ router.weight[1] if learn == "aux_loss" else router.predictors[1](x)
    losses = [
        -math.log(p if chosen else 1 - p)
        for p, chosen in zip(
            logits.sigmoid().flatten().tolist(), routed.go.flatten().tolist(), strict=True
        )
    ]
    term.value.backward()

    assert term.value.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert (router.weight.grad is not None) == (learn == "aux_loss")


def test_expert_choice_capacity_warms_up(x):
    """The share falls from all to the capacity along half a cosine, by optimizer steps."""
    router = ExpertChoiceRouter(SITE, capacity=[1.0, 0.5, 0.5], capacity_warmup=10).train()
    sizes = []
    for _ in range(12):
        sizes.append(router.route(x, 1, {}, T, None).size)
        router.after_step()

    wanted = [0.5 + 0.5 * 0.5 * (1 + math.cos(math.pi * min(1, s / 10))) for s in range(12)]
    assert sizes == [math.floor(share * T + 1e-9) for share in wanted]


def test_threshold_finds_its_quantile(x):
    """The threshold moves to where the wanted share of tokens is above it."""
    router = ThresholdRouter(SITE, capacity=[1.0, 0.5, 0.25], momentum=0.5).train()
    for _ in range(30):
        first = router.route(x, 0, {}, T, None)
        router.route(x, 1, {}, T, None)
        router.after_step()

    assert first.go.all()
    assert router.route(x, 1, {}, T, None).go.float().mean() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(
        router.eval().route(x, 1, {}, T, None).go, router.logits(x, 1) > router.thresholds[1]
    )


def test_threshold_keeps_float32():
    """In a bfloat16 model the thresholds stay exact: their steps are small."""
    router = ThresholdRouter(SITE).to(torch.bfloat16)

    assert router.weight.dtype == torch.bfloat16
    assert router.thresholds.dtype == torch.float32


def test_both_losses_are_reported(tmp_path):
    """Evaluation goes by the threshold, and tells beside it what looking ahead would give."""
    block = {"attention": {"use": "mha", "n_head": 2}}
    stack = [{"recur": 2, "router": "expert_choice", **block}]
    recipe = recipe_of(
        {**TINY, "vocab_size": 300, "stack": stack},
        data={"use": "stdlib", "max_bytes": 20000},
        tokenizer="bytes",
        train={"max_iters": 3, "batch_size": 2, "eval_iters": 2},
    )
    result = strawberry.train(recipe, tmp_path / "run")

    assert {"val_loss", "val_loss_teacher", "val_mean_depth"} <= set(result.metrics)
    assert result.metrics["val_loss"] != result.metrics["val_loss_teacher"]
    assert strawberry.generate(load_run(tmp_path / "run"), "a", max_new_tokens=3) is not None
