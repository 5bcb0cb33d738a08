"""The mode of a model: training or evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """In this context the model is in the given mode; afterwards in its mode of before."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)
