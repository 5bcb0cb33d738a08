"""Corpora made of others: several as one, and files held out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from strawberry.contracts.data import EVERY, Corpus, Split
from strawberry.files.storage import digest


class JoinedCorpus(Corpus):
    """Several corpora as one, split by split."""

    def __init__(self, corpora: Sequence[Corpus]) -> None:
        self.corpora = list(corpora)
        self.splits = tuple(s for s in EVERY if all(s in c.splits for c in corpora))
        self.fingerprint = digest("joined", [corpus.fingerprint for corpus in corpora])
        self.n_documents = sum(corpus.n_documents for corpus in corpora)
        self.n_empty = sum(corpus.n_empty for corpus in corpora)

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of a split, corpus by corpus."""
        return itertools.chain.from_iterable(corpus.documents(split) for corpus in self.corpora)

    def n_bytes(self, split: Split) -> int:
        """UTF-8 bytes in a split."""
        return sum(corpus.n_bytes(split) for corpus in self.corpora)


class HeldOutCorpus(Corpus):
    """A corpus of which some splits are files of their own.

    Args:
        base: the corpus of all other splits.
        held: the corpus of each such split; its training split is all of it.
    """

    def __init__(self, base: Corpus, held: Mapping[Split, Corpus]) -> None:
        self.of: dict[Split, tuple[Corpus, Split]] = {split: (base, split) for split in base.splits}
        self.of |= {split: (corpus, "train") for split, corpus in held.items()}
        self.splits = tuple(split for split in EVERY if split in self.of)
        every = [base, *held.values()]
        self.fingerprint = digest("held out", list(held), [c.fingerprint for c in every])
        self.n_documents = sum(corpus.n_documents for corpus in every)
        self.n_empty = sum(corpus.n_empty for corpus in every)

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of a split's files."""
        corpus, own = self.of[split]
        return corpus.documents(own)

    def n_bytes(self, split: Split) -> int:
        """UTF-8 bytes in a split."""
        corpus, own = self.of[split]
        return corpus.n_bytes(own)
