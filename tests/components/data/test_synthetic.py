"""Data that a task makes: what is drawn when, and how right answers are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import strawberry
from strawberry.data import Dataset, open_dataset
from strawberry.errors import RecipeError
from strawberry.recipe import patch
from strawberry.training import evaluate, train
from tests.support import recipe_of

MODEL: dict[str, Any] = {
    "vocab_size": 16,
    "block_size": 12,
    "n_embd": 32,
    "positional": "rope",
    "stack": [{"attention": {"use": "mha", "n_head": 2}}],
}


def opened(task: Any = "induction_heads", **fields: Any) -> Dataset:
    """The data set of a task in a small model."""
    return open_dataset(recipe_of(MODEL, data={"use": "synthetic", "task": task, **fields}))


def rows(dataset: Dataset, split: Any, step: int, size: int, seed: int = 0) -> list[bytes]:
    """The sequences of a batch."""
    inputs, _ = dataset.rows(split, step * size, size, block_size=12, seed=seed)
    return [row.tobytes() for row in inputs]


def test_sequences_never_end_or_come_again() -> None:
    """Without `examples` each is new, whatever the batch size; another seed has others."""
    dataset = opened()
    first = rows(dataset, "train", 0, 8) + rows(dataset, "train", 1, 8)
    assert first == rows(dataset, "train", 0, 16)
    assert len(set(first)) == 16
    assert not set(first) & set(rows(dataset, "train", 0, 16, seed=1))
    assert dataset.n_tokens("train") is None


def test_a_fixed_set_is_gone_through_in_new_orders() -> None:
    """Each turn has every sequence once; another seed has the same ones in another order."""
    dataset = opened(examples=6)
    turns = [rows(dataset, "train", step, 6) for step in range(3)]
    assert all(len(set(turn)) == 6 and set(turn) == set(turns[0]) for turn in turns)
    assert turns[0] != turns[1]
    other = rows(dataset, "train", 0, 6, seed=1)
    assert set(other) == set(turns[0])
    assert other != turns[0]
    assert rows(dataset, "train", 1, 4) == [*turns[0][4:], *turns[1][:2]]


def test_validation_is_apart_and_starts_again() -> None:
    """`val_examples` sequences, the same for every seed, none of them in the training set."""
    dataset = opened(examples=64, val_examples=5)
    first = rows(dataset, "val", 0, 5)
    assert first == rows(dataset, "val", 1, 5) == rows(dataset, "val", 0, 5, seed=3)
    assert not set(first) & set(rows(dataset, "train", 0, 64))


def test_the_fingerprint_knows_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields and sizes change it, and so does a generator that makes other sequences."""
    from strawberry.components.task.induction_heads import InductionHeads

    prints = {
        opened().fingerprint,
        opened(examples=6).fingerprint,
        opened({"use": "mqar", "pairs": 2}).fingerprint,
        opened({"use": "mqar", "pairs": 3}).fingerprint,
    }
    assert len(prints) == 4
    assert opened().fingerprint in prints
    plain = InductionHeads.example
    monkeypatch.setattr(
        InductionHeads, "example", lambda *a, **k: tuple(np.flip(x).copy() for x in plain(*a, **k))
    )
    assert opened().fingerprint not in prints


def test_what_has_no_room_is_told_at_its_place() -> None:
    """The task's field is named, with its line, and what would do."""
    with pytest.raises(RecipeError, match=r"data\.task\.pairs: 4 pairs and as many questions"):
        opened({"use": "mqar", "pairs": 4})
    with pytest.raises(RecipeError, match="unknown task 'mqr'; did you mean 'mqar'"):
        opened("mqr")


def test_right_answers_are_counted() -> None:
    """Accuracy and solved sequences by a loop over the logits."""
    torch.manual_seed(0)
    recipe = recipe_of(MODEL, data={"use": "synthetic", "task": "modular_sums"})
    model = strawberry.build(recipe)
    inputs, targets = map(
        torch.from_numpy,
        open_dataset(recipe).rows("val", 0, 40, block_size=12, seed=0),
    )
    targets[:, 2:] = -1
    targets[3] = -1
    with torch.no_grad():
        logits = model(inputs)
        found = model.measure(inputs, targets, answers=True)
    right, solved = [], []
    for b in range(40):
        row = [
            int(logits[b, t].argmax()) == int(targets[b, t])
            for t in range(12)
            if targets[b, t] != -1
        ]
        right += row
        solved += [all(row)] if row else []
    assert 0 < sum(right) < len(right) == 78
    assert found.answers is not None
    assert found.answers.tolist() == [sum(right), len(right), sum(solved), len(solved)]


def test_a_task_is_learned(tmp_path: Path) -> None:
    """Facts are memorised to the last one; the run's log and `evaluate` say so."""
    settings = {
        "max_iters": 150,
        "batch_size": 8,
        "learning_rate": 0.01,
        "warmup_iters": 10,
        "eval_iters": 2,
    }
    block = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}
    recipe = recipe_of(
        {**MODEL, "vocab_size": 9, "stack": [block]},
        data={"use": "synthetic", "task": "memorization"},
        train=settings,
    )
    # What stood before each sign is what a network alone can't see.
    blind = patch(recipe, {"model.stack": [{"ffn": "swiglu"}], "model.positional": "none"})
    assert train(blind, tmp_path / "blind").metrics["val_accuracy"] < 0.6
    done = train(recipe, tmp_path / "run")
    assert done.metrics["val_accuracy"] == done.metrics["val_solved"] == 1.0
    assert evaluate(tmp_path / "run")["val_accuracy"] == 1.0
