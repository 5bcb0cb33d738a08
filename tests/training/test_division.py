"""Steps and evaluations don't depend on how their rows are divided, over parts or over ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import strawberry
from strawberry.data import open_dataset
from strawberry.errors import PluginError
from strawberry.model.accounting import account
from strawberry.ranks.world import World
from strawberry.recipe import patch
from strawberry.recipe.spec import Recipe
from strawberry.runs.device import machine_for
from strawberry.training import train
from strawberry.training.batches import Batches, MicroBatch
from strawberry.training.engine import Engine
from strawberry.training.evaluate import validate
from strawberry.training.optimizers import Optimizers
from strawberry.training.recent import RecentSums
from strawberry.training.step import Step
from tests.support import REGISTRY, recipe_of
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import rows

SEQUENCES = 16
DIVISIONS = [(16, 1), (8, 2), (2, 8), (1, 16)]
"""Sequences of a micro-batch, and micro-batches."""

TASKS = sorted(entry.name for entry in REGISTRY.entries("task"))
SMALL = {"mqar": {"pairs": 2}, "selective_copying": {"copied": 4}, "dyck": {"kinds": 3}}
ATTENTION = {"attention": {"use": "mha", "n_head": 2}}
TERMS = [{}, {"label_smoothing": 0.2, "z_loss": 1e-2}]


def task_recipe(task: str, **sections: Any) -> Recipe:
    """A model of a task, small and in float32."""
    model = {
        "vocab_size": 128, "block_size": 24, "n_embd": 16, "positional": "rope",
        "stack": [{**ATTENTION, "ffn": "swiglu"}],
        **sections.pop("model", {}),
    }  # fmt: skip
    data = {"use": "synthetic", "task": {"use": task, **SMALL.get(task, {})}, "val_examples": 64}
    settings = {"device": "cpu", "grad_clip": 0, "keep_memory": False, **sections.pop("train", {})}
    return recipe_of(model, data=data, train=settings, **sections)


def divided(recipe: Recipe, size: int, parts: int) -> Recipe:
    """The recipe with its steps of 16 in so many parts."""
    return patch(recipe, {"train.batch_size": size, "train.gradient_accumulation_steps": parts})


class Pretended(World):
    """One of two ranks, in the process of both."""

    total: Tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """What was worked out before."""
        return self.total


def step_of(recipe: Recipe, ranks: int = 1) -> tuple[dict[str, float], Tensor]:
    """What the first step's row says, and its gradient; ranks are gone through one by one."""
    torch.manual_seed(0)
    model = strawberry.build(recipe).train()
    machine, dataset = machine_for(recipe), open_dataset(recipe)
    if recipe.train.document_mask:
        assert dataset.tokenizer is not None
        model.separator = dataset.tokenizer.eot
    recent = RecentSums(machine)
    optimizers = Optimizers(recipe, model.parameter_infos(), machine.device)
    worlds = [World(rank, ranks) for rank in range(ranks)]
    of_ranks = [Batches(dataset, recipe, machine.device, world).train(0) for world in worlds]
    targets = torch.stack([(y >= 0).sum() for parts in of_ranks for _, y in parts]).sum()
    for world, parts in zip(worlds, of_ranks, strict=True):
        rank = Pretended(world.rank, world.size)
        object.__setattr__(rank, "total", targets)
        share = 1 / len(parts) / ranks
        step = Step(Engine(model, rank), optimizers, lambda _: parts, machine, 0.0)  # noqa: B023 (called at once)
        step.gradient(0, lambda loss, _: recent.add(loss, share))  # noqa: B023 (the same)
    recent.end_step(torch.zeros(()))
    # Gradients and losses of ranks have a mean taken; here they have been summed.
    row = recent.row(1)
    row["loss"] /= ranks
    return row, torch.cat(
        [p.grad.flatten() / ranks for p in model.parameters() if p.grad is not None]
    )


def literal(model: torch.nn.Module, rows: MicroBatch, terms: dict[str, float]) -> Tensor:
    """The loss over the targets that count, one by one."""
    x, y = rows
    logits = model(x).double()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for b, t in (y >= 0).nonzero().tolist():
        nll = -F.log_softmax(logits[b, t], -1)
        smooth = terms.get("label_smoothing", 0.0)
        total = total + (1 - smooth) * nll[y[b, t]] + smooth * nll.mean()
        total = total + terms.get("z_loss", 0.0) * logits[b, t].logsumexp(-1).square()
        count += 1
    return total / count


def check(recipe: Recipe) -> None:
    """The step is the same for every division, and on two ranks; alone it is the literal one."""
    whole = divided(recipe, *DIVISIONS[0])
    row, expected = step_of(whole)
    for division in DIVISIONS[1:]:
        found, slope = step_of(divided(recipe, *division))
        assert found["loss"] == pytest.approx(row["loss"], rel=1e-6)
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)
    for division in DIVISIONS[:3]:
        found, slope = step_of(divided(recipe, *division), ranks=2)
        assert found["loss"] == pytest.approx(row["loss"], rel=1e-6)
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_one_gradient(task: str) -> None:
    """Sequences with different numbers of answers weigh by their answers, in parts and on ranks."""
    check(task_recipe(task))


@pytest.mark.parametrize("terms", TERMS)
def test_the_loss_is_a_sum_over_targets_by_their_count(terms: dict[str, float]) -> None:
    """By a loop over the targets in float64, with smoothing and z-loss, and a softcap."""
    recipe = task_recipe("in_context_recall", objective=terms, model={"logit_softcap": 5.0})
    check(recipe)
    whole = divided(recipe, *DIVISIONS[0])
    torch.manual_seed(0)
    model = strawberry.build(whole).train()
    (batch,) = Batches(open_dataset(whole), whole, torch.device("cpu")).train(0)
    literal(model, batch, terms).backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    _, found = step_of(divided(recipe, 2, 8))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("apart", [False, True])
def test_text_has_one_gradient(make_recipe: RecipeMaker, apart: bool) -> None:
    """Text in windows, with documents together and apart."""
    check(make_recipe(model={"dropout": 0.0}, train={"document_mask": apart, "grad_clip": 0}))


def test_router_losses_are_weighed_by_tokens() -> None:
    """Experts' z-loss and the depth thresholds' are means over tokens, and so are their metrics."""
    moe = {"use": "moe", "experts": 4, "balance_loss": 0, "z_loss": 0.1}
    recipe = task_recipe("in_context_recall", model={"stack": [{**ATTENTION, "ffn": moe}]})
    check(recipe)
    rows = [step_of(divided(recipe, *division))[0] for division in DIVISIONS]
    for name in ("moe_z", "moe_entropy", "moe_max_violation"):
        assert [row[name] for row in rows] == pytest.approx([rows[0][name]] * 4, rel=1e-5), name
    router = {"use": "threshold", "z_loss": 0.1}
    stack = [{"recur": 3, "router": router, "stack": [ATTENTION]}]
    check(task_recipe("in_context_recall", model={"stack": stack}))


def test_balance_losses_are_those_of_micro_batches_weighed_by_tokens() -> None:
    """No means over tokens: a step has the mean of its parts' own, and says that it has."""
    moe = {"use": "moe", "experts": 4, "balance_loss": 0.5, "importance_loss": 0.3}
    stack = [{**ATTENTION, "ffn": moe}]
    plain = task_recipe("in_context_recall", model={"stack": [{**ATTENTION, "ffn": "moe"}]})
    recipe = divided(task_recipe("in_context_recall", model={"stack": stack}), 2, 8)
    torch.manual_seed(0)
    model = strawberry.build(recipe).train()
    parts = Batches(open_dataset(recipe), recipe, torch.device("cpu")).train(0)
    count = torch.stack([(y >= 0).sum() for _, y in parts]).sum()
    total = torch.stack([model.loss(x, y, count=count, share=1 / 8).total for x, y in parts]).sum()
    alone = [model.loss(x, y).metrics for x, y in parts]
    own = [0.5 * one["moe_balance"] + 0.3 * one["moe_importance"] for one in alone]
    whole = model.loss(*(torch.cat(each) for each in zip(*parts, strict=True)))
    torch.testing.assert_close(total, whole.cross_entropy + torch.stack(own).mean())
    assert (total - whole.total).abs() > 1e-5
    line = "balance_loss, importance_loss: computed for each of the 8 micro-batches separately"
    assert sum(one.startswith(line) for one in account(recipe).warnings) == 1
    for other in (divided(recipe, 16, 1), divided(plain, 16, 1)):
        assert not any("micro-batch" in one for one in account(other).warnings)


def test_a_run_is_the_same_for_every_division(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The log of a whole run, its evaluations among it, doesn't tell how steps were divided."""
    logs = []
    for size, parts in ((8, 1), (4, 2), (1, 8)):
        recipe = make_recipe(
            model={"dropout": 0.0},
            train={"batch_size": size, "gradient_accumulation_steps": parts, "max_iters": 4},
        )
        train(recipe, tmp_path / f"{size}")
        logs.append([{k: v for k, v in row.items() if k != "tokens_per_second"}
                     for row in rows(tmp_path / f"{size}")])  # fmt: skip
    for other in logs[1:]:
        for row, first in zip(other, logs[0], strict=True):
            assert row == pytest.approx(first, rel=1e-4)


def validation(recipe: Recipe, world: World | None = None) -> dict[str, float]:
    """What the untrained model is measured by."""
    torch.manual_seed(0)
    model = strawberry.build(recipe)
    machine = machine_for(recipe)
    batches = Batches(open_dataset(recipe), recipe, machine.device, world)
    return validate(Engine(model, world), batches, machine)


@pytest.mark.parametrize("stack", ["plain", "routed"])
def test_an_evaluation_is_the_same_for_every_batch_size(stack: str) -> None:
    """64 sequences in batches of 1, 4, 20 (the last one is uneven) and 64, by a literal count."""
    router = {"use": "threshold", "capacity": [1.0, 0.3, 0.001]}
    stacks = {
        "plain": [ATTENTION],
        "routed": [{"recur": 3, "router": router, "stack": [ATTENTION]}],
    }
    recipe = task_recipe("in_context_recall", model={"stack": stacks[stack]})
    found = [
        validation(patch(recipe, {"train.batch_size": size, "train.eval_iters": -(-64 // size)}))
        for size in (64, 20, 4, 1)
    ]
    torch.manual_seed(0)
    model = strawberry.build(recipe).eval()
    x, y = map(torch.from_numpy, open_dataset(recipe).rows("val", 0, 64, block_size=24, seed=0))
    right = (model(x).argmax(-1) == y)[y >= 0]
    assert found[0]["val_accuracy"] == pytest.approx(right.float().mean().item())
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)
    if stack == "routed":
        assert found[0]["val_dead_steps"] == round(found[0]["val_dead_steps"])


def test_bits_per_byte_are_of_the_bytes_evaluated(make_recipe: RecipeMaker) -> None:
    """A sample's nats are divided by the bytes of its own targets, not by the split's mean."""
    recipe = make_recipe(train={"eval_iters": 1, "batch_size": 3})
    found = validation(recipe)
    dataset = open_dataset(recipe)
    _, y = dataset.rows("val", 0, 3, block_size=16, seed=0)
    n_bytes = sum(int(i) < 256 for i in y.ravel())  # of the tokenizer `bytes`, ends aside
    expected = found["val_loss"] * y.size / np.log(2) / n_bytes
    assert found["bits_per_byte"] == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [-100, -2, 300, 0.5])
def test_targets_of_other_conventions(
    make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """-100 isn't predicted, as -1 isn't; what no model can take is refused in a line."""
    recipe = make_recipe(model={"dropout": 0.0})
    dataset = open_dataset(recipe)
    original = type(dataset).rows

    def given(value: float) -> Any:
        def rows(self: Any, *args: Any, **sizes: Any) -> Any:
            x, y = original(self, *args, **sizes)
            y = y.astype(np.float64) if value == 0.5 else y
            y[:, ::3] = value
            return x, y

        monkeypatch.setattr(type(dataset), "rows", rows)
        return step_of(recipe)

    row, expected = given(-1)
    if wrong == -100:
        found, slope = given(wrong)
        assert found["loss"] == row["loss"]
        assert torch.equal(slope, expected)
        return
    told = {-2: "a target is -2, outside", 300: "a target is 300", 0.5: "expected whole"}[wrong]
    with pytest.raises(PluginError, match=f"data strawberry/text: rows 0 to 1 of train: .*{told}"):
        given(wrong)
