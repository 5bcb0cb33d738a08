"""Checks of data sources: rows are reproducible windows of ids, and splits are disjoint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.contracts.data import SPLITS, TEST, UNPREDICTED, Dataset, Ids, Split
from strawberry.data import open_dataset

BATCH: Final = 4
STEPS: Final = 3
SPAN: Final = 32
"""Number of tokens in a row that are unlikely to be in both splits by chance."""
SAMPLE: Final = 1 << 20
"""Maximum number of training tokens searched for validation spans."""


def windows(subject: Subject) -> str:
    """Are inputs and targets (B, T) int64, within the vocabulary, with targets to predict?"""
    dataset = open_dataset(subject.recipe)
    length = subject.recipe.model.block_size
    for split in SPLITS:
        for step in range(STEPS):
            given = _batch(subject, dataset, split, step)
            for what, ids in zip(("inputs", "targets"), given, strict=True):
                place = f"{what} of {_rows_of(split, step)}"
                if ids.shape != (BATCH, length) or ids.dtype != np.int64:
                    shape = " x ".join(map(str, ids.shape))
                    raise Finding(
                        f"{place} are {shape} {ids.dtype}, expected {BATCH} x {length} int64"
                    )
                known = ids if what == "inputs" else ids[~np.isin(ids, UNPREDICTED)]
                if known.size and (known.min() < 0 or known.max() >= dataset.vocab_size):
                    raise Finding(
                        f"{place} are between {known.min()} and {known.max()}, but the vocabulary "
                        f"has {dataset.vocab_size} ids"
                    )
            if (given[1] < 0).all():
                raise Finding(f"every target of {_rows_of(split, step)} is ignored")
    held = "a locked test split" if TEST in dataset.splits else "no test split (`splits`)"
    sizes = f"{_size(dataset, 'train')} and {_size(dataset, 'val')} tokens"
    return f"{dataset.vocab_size} ids, {sizes}, {held}"


def repeats(subject: Subject) -> str:
    """Do row numbers determine rows: asked again, out of order, opened again?"""
    dataset = open_dataset(subject.recipe)
    asked: list[tuple[Split, int]] = [(split, step) for split in SPLITS for step in range(STEPS)]
    first = [_batch(subject, dataset, *which) for which in asked]
    again = [_batch(subject, dataset, *which) for which in reversed(asked)][::-1]
    _same(asked, first, again, "asked again, in another order,")
    with tempfile.TemporaryDirectory() as folder:
        anew = open_dataset(subject.recipe, cache=Path(folder))
        _same(asked, first, [_batch(subject, anew, *which) for which in asked], "opened again,")
        if anew.fingerprint != dataset.fingerprint:
            raise Finding("opened again, its fingerprint differs, so a run could not resume")
    return f"{len(asked) * BATCH} rows, three times"


def draws(subject: Subject) -> str:
    """Do training rows depend on step and seed, and validation rows on no seed?"""
    dataset = open_dataset(subject.recipe)
    first, _ = _batch(subject, dataset, "train", 0)
    for what, step, seed in (("step", 1, 0), ("seed", 0, 1)):
        if np.array_equal(first, _batch(subject, dataset, "train", step, seed=seed)[0]):
            raise Finding(f"with another {what} the training rows stay the same")
    fixed = _batch(subject, dataset, "val", 0)
    if not _equal(fixed, _batch(subject, dataset, "val", 0, seed=1)):
        raise Finding("with another seed the validation rows change, so runs could not be compared")
    return "drawn by step and seed; validation is fixed"


def in_order(subject: Subject) -> str:
    """Are rows independent of the number of rows in a request?"""
    dataset = open_dataset(subject.recipe)
    consequence = {
        "train": "a step would depend on how micro-batches or ranks divide it",
        "val": "validation losses would depend on the batch size",
    }
    for split in SPLITS:
        together, again = (_batch(subject, dataset, split, 1) for _ in range(2))
        if not _equal(together, again):
            raise NotApplicable("rows change each time they are read")
        for number, (x, y) in enumerate(zip(*together, strict=True)):
            alone = _batch(subject, dataset, split, BATCH + number, batch_size=1)
            if not _equal((alone[0][0], alone[1][0]), (x, y)):
                raise Finding(
                    f"row {BATCH + number} of {split} differs between a read by itself and a read "
                    f"of {BATCH} rows: {consequence[split]}"
                )
    return f"{BATCH} rows, alone and together"


def apart(subject: Subject) -> str:
    """Is validation text absent from the training text?"""
    dataset = open_dataset(subject.recipe)
    train, val = dataset.n_tokens("train"), dataset.n_tokens("val")
    length = subject.recipe.model.block_size
    if train is None or val is None:
        raise NotApplicable("it is generated without end")
    if length < SPAN:
        raise NotApplicable(f"windows of {length} tokens are too short to tell")
    rows = -(-min(2 * train, SAMPLE) // length)
    x, _ = dataset.rows("train", 0, rows, block_size=length, seed=0)
    number = min(64, max(1, val // length))
    y, _ = dataset.rows("val", 0, number, block_size=length, seed=0)
    seen = set(_hashes(x).ravel().tolist())
    spans = _hashes(y)[:, ::SPAN].ravel()
    shared = float(np.mean([span in seen for span in spans.tolist()]))
    covered = 1 - float(np.exp(-rows * (length - SPAN + 1) / train))
    share = min(1.0, shared / covered)
    if share > 0.5:  # some text is found in both splits of any corpus: licences, boilerplate
        raise Finding(
            f"{share:.0%} of the validation split's spans of {SPAN} tokens are in the "
            "training split too"
        )
    return f"{share:.1%} of {len(spans)} spans of {SPAN} tokens are in both splits"


def _hashes(ids: Ids) -> npt.NDArray[np.uint64]:
    """A number for each span of `SPAN` tokens of each window, (B, T - SPAN + 1)."""
    factors = np.random.default_rng(0).integers(1, 1 << 63, size=SPAN, dtype=np.uint64)
    total = np.zeros((ids.shape[0], ids.shape[1] - SPAN + 1), dtype=np.uint64)
    columns = sliding_window_view(ids.astype(np.uint64), total.shape[1], axis=1)
    for place, factor in enumerate(factors):  # modulo 2**64, which is what overflow gives
        total += columns[:, place] * factor
    return total


def _batch(
    subject: Subject,
    dataset: Dataset,
    split: Split,
    step: int,
    *,
    batch_size: int = BATCH,
    seed: int = 0,
) -> tuple[Ids, Ids]:
    length = subject.recipe.model.block_size
    return dataset.rows(split, step * batch_size, batch_size, block_size=length, seed=seed)


def _rows_of(split: Split, step: int) -> str:
    return f"rows {step * BATCH} to {step * BATCH + BATCH - 1} of {split}"


def _equal(left: tuple[Ids, Ids], right: tuple[Ids, Ids]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def _same(
    asked: list[tuple[Split, int]],
    first: list[tuple[Ids, Ids]],
    second: list[tuple[Ids, Ids]],
    how: str,
) -> None:
    for (split, step), left, right in zip(asked, first, second, strict=True):
        if not _equal(left, right):
            raise Finding(f"{how} {_rows_of(split, step)} differ, so a run could not resume")


def _size(dataset: Dataset, split: Split) -> str:
    number = dataset.n_tokens(split)
    return "endless" if number is None else f"{number:,}"
