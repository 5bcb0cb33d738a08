"""The overlap of two splits, against a literal search."""

import numpy as np
import pytest

from strawberry.data import overlap as module
from strawberry.data.overlap import WINDOW, overlap
from strawberry.data.runs import NEAR, RUN


def literal(train: np.ndarray, val: np.ndarray) -> tuple[float, float]:
    """The shares of copies and near copies, by comparing every run with every other."""
    runs = {tuple(train[at : at + RUN].tolist()) for at in range(len(train) - RUN + 1)}
    shares = []
    for begin in range(0, len(val) - WINDOW + 1, WINDOW):
        window = val[begin : begin + WINDOW].tolist()
        own = [tuple(window[at : at + RUN]) in runs for at in range(WINDOW - RUN + 1)]
        shares.append(sum(own) / len(own))
    return float(np.mean([s == 1 for s in shares])), float(np.mean([s >= NEAR for s in shares]))


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_what_a_literal_search_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies, near copies and new text are told apart, over several arrays and pieces."""
    monkeypatch.setattr(module, "PIECE", 97)
    rng = np.random.default_rng(seed)
    train = rng.integers(0, 500, 3000).astype(np.uint16)
    copied = train[500 : 500 + 4 * WINDOW]
    near = train[1500 : 1500 + 4 * WINDOW].copy()
    near[::WINDOW] = 501  # one new id at the beginning of each window: 51 of 52 runs stand there
    new = rng.integers(0, 500, 8 * WINDOW).astype(np.uint16)
    val = np.concatenate([copied, near, new])
    found = overlap([train[:1700], train[1700 - RUN :]], [val])
    assert found is not None
    assert (found.copies, found.near) == literal(train, val)
    assert (found.copies, found.near) == (0.25, 0.5)
    assert found.seen == 1.0


def test_too_short_a_split_has_no_overlap() -> None:
    """Without a whole window there is nothing to say."""
    assert overlap([np.arange(100)], [np.arange(WINDOW - 1)]) is None
