"""The data set of token files of other projects."""

from __future__ import annotations

from pathlib import Path

from strawberry.contracts.data import EVERY, SPLITS, TEST, DataSite, Split
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.packed import PackedDataset, hold_back
from strawberry.data.shards import IdFile, open_shards
from strawberry.data.stream import IdStream
from strawberry.errors import StrawberryError
from strawberry.files.storage import FileFingerprints, digest


class ShardedDataset(PackedDataset):
    """Windows over the ids of files; bytes of text are known with a tokenizer."""

    def __init__(
        self,
        ids: dict[Split, IdStream],
        *,
        vocab_size: int,
        fingerprint: str,
        tokenizer: Tokenizer | None,
        eot: int | None,
    ) -> None:
        super().__init__(
            ids, None, vocab_size=vocab_size, fingerprint=fingerprint, tokenizer=tokenizer
        )
        self._eot = eot

    @property
    def eot(self) -> int | None:
        """The id that ends a document: the recipe's, or else the tokenizer's."""
        return super().eot if self._eot is None else self._eot


def sharded_dataset(
    files: dict[Split, list[Path]],
    dtype: str,
    data_division: float,
    tokenizer: Tokenizer | None,
    eot: int | None,
    site: DataSite,
    test_division: float = 0.0,
) -> ShardedDataset:
    """Open the data set of training, validation and test files.

    Args:
        files: files of each split. Without validation files, the end of the training ids is used.
            Without test files, `test_division` of all ids is taken from the rest.
        dtype: type of the ids in files without a header, `uint16` or `uint32`.
        data_division: fraction for training without validation files.
        tokenizer: the tokenizer of the ids, if known.
        eot: id between documents; None takes the tokenizer's.
        site: the site of the data source.
        test_division: fraction of the test split.

    Raises:
        StrawberryError: a file is damaged, or has an id that the tokenizer or the model lacks.
    """
    identities = FileFingerprints(site.cache)
    held = [s for s in EVERY if s in SPLITS or files.get(s)]
    opened = {s: open_shards(files[s], dtype, identities, site.progress) for s in held}
    room = site.vocab_size if tokenizer is None else tokenizer.vocab_size
    owner = "the model's vocabulary" if tokenizer is None else "its tokenizer"
    for file in (file for split in held for file in opened[split]):
        if file.largest >= room:
            raise StrawberryError(
                f"{file.path}: contains id {file.largest}, but {owner} has {room} ids"
            )
    if eot is not None and eot >= room:
        raise StrawberryError(f"eot is {eot}, but {owner} has {room} ids")
    ids = {split: IdStream([file.ids for file in opened[split]]) for split in held}
    total = sum(stream.size for stream in ids.values())
    cut = None
    if not files["val"]:
        cut = round(ids["train"].size * data_division)
        ids["train"], ids["val"] = ids["train"].split(cut)
    if test_division and TEST not in ids:
        known = eot if eot is not None or tokenizer is None else tokenizer.eot
        ids["train"], ids[TEST] = hold_back(ids["train"], round(total * test_division), known)
    return ShardedDataset(
        ids,
        vocab_size=room,
        fingerprint=_fingerprint(opened, cut, room, test_division),
        tokenizer=tokenizer,
        eot=eot,
    )


def _fingerprint(
    opened: dict[Split, list[IdFile]], cut: int | None, vocab_size: int, test_division: float
) -> str:
    contents = [[[file.ids.dtype.str, file.sha256] for file in files] for files in opened.values()]
    held = [test_division] if test_division else []
    return digest("shards", contents, cut, vocab_size, *held)
