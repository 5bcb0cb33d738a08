"""What the frequencies of tokens alone would predict."""

from __future__ import annotations

from typing import Final

import numpy as np

from strawberry.contracts.data import Dataset

ENOUGH: Final = 1_000_000
"""Training tokens that are counted: more change the entropy by less than a hundredth of a nat."""


def frequency_loss(dataset: Dataset) -> float | None:
    """The entropy of the training tokens' frequencies in nats; None if they are generated.

    It is the loss of a model that knows how frequent each token is, and nothing of its context.
    """
    counts = np.zeros(dataset.vocab_size, np.int64)
    arrays = dataset.arrays("train")
    if arrays is None:
        return None
    left = ENOUGH
    for array in arrays:
        counts += np.bincount(array[:left].astype(np.int64), minlength=counts.size)
        left -= min(left, len(array))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
