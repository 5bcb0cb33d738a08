"""A fingerprint of a split's text, independent of tokenizer and window."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from strawberry.contracts.data import Dataset, Split

_IDS: Final = 1 << 16
"""Number of ids of a split to read."""
_BYTES: Final = 1 << 14
"""Number of bytes of their text: fewer than ids, so that every tokenizer reaches it."""


def fingerprint(dataset: Dataset, split: Split, block_size: int) -> str:
    """A digest of the beginning of a split's text: the same for every tokenizer and window.

    Without text, the digest is that of ids, or of a task's sequences.
    """
    checksum = hashlib.sha256()
    arrays = dataset.arrays(split)
    if arrays is None:
        rows = max(1, min(64, _IDS // block_size))
        rows = min(rows, dataset.rows_in(split, block_size) or rows)
        for part in dataset.rows(split, 0, rows, block_size=block_size, seed=0):
            checksum.update(np.ascontiguousarray(part).tobytes())
        return checksum.hexdigest()[:16]
    ids = np.concatenate([np.zeros(0, np.int64), *(part[:_IDS] for part in arrays)])[:_IDS]
    tokenizer = dataset.tokenizer
    if tokenizer is None:
        checksum.update(ids.astype(np.int64).tobytes())
    else:
        text = tokenizer.decode_bytes(ids[ids != tokenizer.eot].tolist())
        checksum.update(text[:_BYTES])
    return checksum.hexdigest()[:16]
