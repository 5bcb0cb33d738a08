"""Common parts of tasks: checks of size, and targets from a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import IGNORED, Ids
from strawberry.errors import FieldError, StrawberryError


def need_ids(needed: int, vocab_size: int, why: str, field: str = "") -> None:
    """Raises FieldError about `field`, or StrawberryError, if the vocabulary is too small."""
    if vocab_size < needed:
        message = f"{why} needs a vocabulary of {needed}; model.vocab_size is {vocab_size}"
        raise FieldError(field, message) if field else StrawberryError(message)


def need_length(needed: int, length: int, why: str, field: str = "") -> None:
    """Raises FieldError about `field`, or StrawberryError, if the sequence is too short."""
    if length < needed:
        message = f"{why} needs {needed} tokens; model.block_size is {length}"
        raise FieldError(field, message) if field else StrawberryError(message)


def next_tokens(
    sequence: npt.ArrayLike, answers: npt.ArrayLike, everything: bool
) -> tuple[Ids, Ids]:
    """Inputs and targets (T,) of a sequence (T + 1,) that predicts its own next tokens.

    Args:
        sequence: the ids.
        answers: mask of the answers, (T + 1,) of bool.
        everything: predict all tokens instead of only the answers.
    """
    ids = np.asarray(sequence, dtype=np.int64)
    right = np.asarray(answers, dtype=bool)
    return ids[:-1].copy(), np.where(right[1:] | everything, ids[1:], IGNORED)


def unanswered(length: int) -> Ids:
    """Targets (length,) without any answer."""
    return np.full(length, IGNORED, dtype=np.int64)


def one_of(rng: np.random.Generator, ids: Any) -> int:
    """One of a sequence of ids, uniformly."""
    return int(ids[int(rng.integers(len(ids)))])
