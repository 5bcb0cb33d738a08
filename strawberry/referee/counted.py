"""Compare the tokens and bytes that a loss is divided by with the text.

Bits per byte are nats over bytes, and a loss is nats over tokens. So what a data set and a
tokenizer count is compared with what can be counted without them: the rows with the split's ids,
the ids with the documents, the bytes with those that each id stands for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import Dataset, Ids
from strawberry.data.faithful import Fidelity, Table, known_fidelity
from strawberry.data.runs import MOST, NEAR, RUN, runs
from strawberry.referee.dependence import Breach

CLOSE: Final = 1e-4
"""How far counts and sums may be apart, as a share: losses of rows are kept in float32."""
EMPTY: Final = 0.01
"""The share of targets that may stand for no text, beside the ends of documents."""
DISTINCT: Final = 0.5
"""The share of rows that have to be different where nothing says which rows there are."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation, as it was counted.

    Attributes:
        x, y: all of its rows of `val`, (B, T).
        nats: the summed loss of each row; empty where it isn't known.
        metrics: what the evaluation told.
        trained: rows (B, T + 1) of the last training step.
        data, tokenizer: what the recipe calls them, for messages.
    """

    x: Ids
    y: Ids
    nats: Sequence[float]
    metrics: Mapping[str, float]
    trained: Ids
    data: str
    tokenizer: str


def counted_breaches(dataset: Dataset, seen: Evaluated) -> tuple[list[Breach], list[str]]:
    """Errors in the counts, and declared differences from the text.

    Without a tokenizer there is no text, and the sums alone are looked at.
    """
    breaches, declared = [*_sums(seen)], list[str]()
    if dataset.tokenizer is None:
        return breaches, declared
    table = Table(dataset.tokenizer)
    breaches += [*_rows(dataset, seen), *_bytes(dataset, seen, table)]
    if not dataset.predicts_all and (left_out := float((seen.y < 0).mean())):
        declared.append(f"data {seen.data}: {left_out:.0%} of the targets are left out")
    fidelity = known_fidelity(dataset, table)
    if fidelity is None or fidelity.exact:
        return breaches, declared
    place = f"tokenizer {seen.tokenizer}"
    if dataset.tokenizer.lossless:
        breaches.append(Breach("text", 1 - fidelity.kept, _told(fidelity), place))
    else:
        declared.append(f"{place}: {_told(fidelity)}")
    return breaches, declared


def _told(fidelity: Fidelity) -> str:
    share = fidelity.decoded / max(1, fidelity.text)
    lost = f", but not {fidelity.lost[:32]!r}" if fidelity.lost else ""
    return (
        f"the ids of validation stand for {share:.3g} times the bytes of its text, and give back "
        f"{fidelity.kept:.0%} of it{lost}"
    )


def _sums(seen: Evaluated) -> Iterator[Breach]:
    """Compare the mean loss with that of the rows."""
    targets = int((seen.y >= 0).sum())
    if not len(seen.nats) or not targets:
        return
    expected = math.fsum(seen.nats) / targets
    told = float(seen.metrics.get("val_loss", math.nan))
    if not math.isclose(told, expected, rel_tol=CLOSE, abs_tol=CLOSE):
        detail = f"val_loss is {told:.6g} where the rows' losses and targets make {expected:.6g}"
        yield Breach("text", abs(told - expected), detail, f"data {seen.data}")


def _bytes(dataset: Dataset, seen: Evaluated, table: Table) -> Iterator[Breach]:
    """Compare the bytes with those of the targets, and the targets with tokens of text."""
    expected, claimed = table.count(seen.y), dataset.n_bytes("val", seen.y)
    bits = seen.metrics.get("bits_per_byte")
    if bits and len(seen.nats):  # what the evaluation itself was told
        claimed = math.fsum(seen.nats) / math.log(2) / bits
    if claimed is not None and not math.isclose(claimed, expected, rel_tol=CLOSE):
        detail = f"{claimed:,.0f} bytes are counted where the targets stand for {expected:,}"
        size = abs(claimed - expected) / max(1, expected)
        yield Breach("text", size, detail, f"data {seen.data}")
    counted = seen.y[(seen.y >= 0) & (seen.y != table.eot)]
    empty = float((table.lengths[counted] == 0).mean()) if counted.size else 0.0
    if empty > EMPTY:
        detail = f"{empty:.0%} of the tokens stand for no text, so that a token's loss looks small"
        yield Breach("text", empty, detail, f"tokenizer {seen.tokenizer}")


def _rows(dataset: Dataset, seen: Evaluated) -> Iterator[Breach]:
    """Check that the rows are windows of the split, each as often as it occurs."""
    place, left_out = f"data {seen.data}", float((seen.y < 0).mean())
    if left_out and dataset.predicts_all:
        detail = f"{left_out:.2%} of the targets are left out, which it doesn't declare"
        yield Breach("text", left_out, detail, place)
    pairs = (seen.y >= 0)[:, :-1] & (seen.y[:, :-1] != seen.x[:, 1:])
    if pairs.any():
        detail = f"row {int(np.argwhere(pairs)[0][0])}: a target is not the next token"
        yield Breach("text", float(pairs.mean()), detail, place)
    windows = seen.x if left_out else np.concatenate([seen.x, seen.y[:, -1:]], 1)
    often = _often(dataset, windows)
    counts = Counter(map(_hash, windows))
    if often is None:
        if len(counts) < DISTINCT * len(windows):
            detail = f"{len(windows)} rows are {len(counts)} different ones"
            yield Breach("text", 1 - len(counts) / len(windows), detail, place)
        return
    for number, window in enumerate(windows):
        there, asked = often.get(_hash(window), 0), counts[_hash(window)]
        if asked > there:
            where = f"stands in it {there} times" if there else "is no window of its ids"
            detail = f"row {number} of validation is evaluated {asked} times, and {where}"
            yield Breach("text", 1.0, detail, place)
            break
    yield from _trained(dataset, seen, place)


def _trained(dataset: Dataset, seen: Evaluated, place: str) -> Iterator[Breach]:
    """Find trained rows that are in the validation text, and not in training's."""
    if not len(seen.trained):
        return
    judged = np.unique(np.concatenate([runs(row) for row in seen.x] or [np.zeros(0, np.uint64)]))
    for number, row in enumerate(seen.trained):
        shared = np.isin(runs(row), judged).mean() if row.size >= RUN else 0.0
        if shared < NEAR:
            continue
        often = _often(dataset, row[None], "train")
        if often is not None and not often:
            detail = f"row {number} of the last training step is validation text"
            yield Breach("text", float(shared), detail, place)
            return


def _often(dataset: Dataset, windows: Ids, split: Any = "val") -> dict[int, int] | None:
    """How often each of these windows (B, T) stands in a split; None where nobody knows."""
    arrays = dataset.arrays(split)
    if arrays is None or sum(part.size for part in arrays) > MOST:
        return None
    length = windows.shape[1]
    ids = arrays[0] if len(arrays) == 1 else np.concatenate(list(arrays))
    hashes = runs(ids, length)
    wanted = np.array([_hash(window) for window in windows], np.uint64)
    return {int(value): int(n) for value, n in zip(*_counts(hashes, wanted), strict=True)}


def _counts(
    hashes: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Those of `wanted` that are among the hashes, with their numbers."""
    return np.unique(hashes[np.isin(hashes, np.unique(wanted))], return_counts=True)


def _hash(window: npt.NDArray[Any]) -> int:
    return int(runs(window, window.size)[0])
