"""What fixtures make, and the logits of both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from strawberry.generation import LoadedRun, load_run
from strawberry.recipe import Recipe

MakeRecipe: TypeAlias = Callable[..., Recipe]
MakeLoaded: TypeAlias = Callable[..., LoadedRun]
MakeRun: TypeAlias = Callable[..., Path]

VOCAB_SIZE, LENGTH = 263, 24

WITHIN = 1e-5
"""Largest absolute difference of logits, which are about 10 at most, in float32."""


def random_ids() -> Tensor:
    """Ids (2, T), always the same."""
    noise = torch.Generator().manual_seed(5)
    return torch.randint(VOCAB_SIZE, (2, LENGTH), generator=noise)


def differ(run: LoadedRun | Path, model: Any) -> float:
    """The largest absolute difference between our logits and those of transformers' model.

    Raises AssertionError if ours are too small to tell.
    """
    ours = load_run(run, device="cpu").model if isinstance(run, Path) else run.model
    with torch.no_grad():
        logits, theirs = ours(random_ids()), model(random_ids()).logits
    assert logits.abs().max() > 1
    return float((logits - theirs).abs().max())
