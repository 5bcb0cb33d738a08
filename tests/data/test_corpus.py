"""Corpora: nothing is lost between the splits, and the same text is always on the same side."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from strawberry.data.corpus import FileCorpus
from strawberry.data.documents import read_documents
from strawberry.data.texts import left_out
from strawberry.errors import StrawberryError
from strawberry.files.storage import FileFingerprints

# The fixture that a property shares between its examples only makes folders.
SHARED = [HealthCheck.function_scoped_fixture]


def corpus_of(
    folder: Path, texts: list[str], division: float = 0.9, cache: Path | None = None
) -> FileCorpus:
    """A corpus of one file a text."""
    folder.mkdir(exist_ok=True)
    paths = []
    for index, text in enumerate(texts):
        path = folder / f"{index:03}.txt"
        path.write_bytes(text.encode())
        paths.append(path)
    identities = FileFingerprints(cache or folder / "cache")
    return FileCorpus(
        paths, read_documents, reader="test", data_division=division, identities=identities
    )


def test_one_document_is_cut_near_its_share_at_the_end_of_a_line(tmp_path: Path) -> None:
    """The beginning of a lone document trains, its end validates, and a line stays whole."""
    text = "".join(f"line {i} \u00e9\n" for i in range(1000))
    corpus = corpus_of(tmp_path, [text])
    (train,), (val,) = corpus.documents("train"), corpus.documents("val")
    assert train + val == text
    assert train.endswith("\n")
    assert abs(len(train.encode()) / len(text.encode()) - 0.9) < 0.01
    assert corpus.n_bytes("train") == len(train.encode())
    assert corpus.n_bytes("val") == len(val.encode())


def test_empty_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    """They are in neither split, and a cached corpus knows of them too."""
    texts = ["", "one\n" * 9, "", "two\n" * 9, ""]
    for _ in range(2):
        corpus = corpus_of(tmp_path, texts, 0.5)
        assert (corpus.n_documents, corpus.n_empty) == (2, 3)
        assert sorted([*corpus.documents("train"), *corpus.documents("val")]) == texts[1:4:2]
        assert left_out(corpus) == ("3 of 5 documents are empty or null and were left out",)
    assert left_out(corpus_of(tmp_path / "full", ["text"])) == ()


def test_documents_go_whole_but_for_one(tmp_path: Path) -> None:
    """At most one document is on both sides, and both splits keep the order of the files."""
    texts = [f"document {i}\n" * (1 + i % 7) for i in range(200)]
    corpus = corpus_of(tmp_path, texts, 0.8)
    train, val = list(corpus.documents("train")), list(corpus.documents("val"))
    assert len(set(train) - set(texts)) <= 1
    assert len(set(val) - set(texts)) <= 1
    assert len(train) + len(val) - len(texts) <= 1
    for split in (train, val):
        places = [texts.index(text) for text in split if text in texts]
        assert places == sorted(places)
    assert abs(corpus.n_bytes("val") / sum(map(len, texts)) - 0.2) < 0.02


def test_copies_fall_on_the_same_side(tmp_path: Path) -> None:
    """A document that occurs twice is not learnt by heart for validation."""
    texts = [f"document number {i % 50}\n" for i in range(100)]
    corpus = corpus_of(tmp_path, texts, 0.5)
    train, val = set(corpus.documents("train")), set(corpus.documents("val"))
    assert len(train & val & set(texts)) <= 1  # the one at the border may have a copy beyond it


@settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
@given(
    texts=st.lists(st.text("a\n\u00e9\U0001f353", max_size=30), min_size=1, max_size=12),
    division=st.floats(0.01, 0.99),
)
def test_no_text_is_lost(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], division: float
) -> None:
    """Both splits together are the corpus, to the byte, whatever the documents and the share."""
    if not "".join(texts):
        return
    corpus = corpus_of(tmp_path_factory.mktemp("corpus"), texts, division)
    splits = {s: list(corpus.documents(s)) for s in ("train", "val")}
    together = sorted("".join(splits["train"] + splits["val"]))
    assert together == sorted("".join(texts))
    for split, documents in splits.items():
        assert corpus.n_bytes(split) == len("".join(documents).encode())  # type: ignore[arg-type]
        assert all(documents)


def test_the_fingerprint_is_of_content_and_division(tmp_path: Path) -> None:
    """Moved files are the same corpus; one changed byte, order or share is another."""
    texts = ["one\n" * 9, "two\n" * 9]
    first = corpus_of(tmp_path / "a", texts).fingerprint
    assert corpus_of(tmp_path / "b", texts).fingerprint == first
    assert corpus_of(tmp_path / "c", texts[::-1]).fingerprint != first
    assert corpus_of(tmp_path / "d", texts, 0.8).fingerprint != first
    assert corpus_of(tmp_path / "e", [texts[0], "twO\n" + "two\n" * 8]).fingerprint != first


def test_a_corpus_that_is_known_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unchanged files give fingerprint and sizes from the cache; a changed one is read."""
    monkeypatch.setattr("strawberry.files.storage._SETTLED_NS", -(10**18))
    known = corpus_of(tmp_path, ["some text\n"] * 3)
    paths = sorted(tmp_path.glob("*.txt"))

    def again(read: object) -> FileCorpus:
        return FileCorpus(
            paths,
            read,  # type: ignore[arg-type]
            reader="test",
            data_division=0.9,
            identities=FileFingerprints(tmp_path / "cache"),
        )

    found = again(None)
    assert (found.fingerprint, found.n_documents) == (known.fingerprint, 3)
    assert found.n_bytes("train") == known.n_bytes("train")
    paths[0].write_text("same size\n")
    assert again(read_documents).fingerprint != known.fingerprint


def test_a_corpus_that_changes_under_us_is_noticed(tmp_path: Path) -> None:
    """Text that changes between two readings is an error, not a mixture."""
    corpus = corpus_of(tmp_path, ["some text\n" * 9, "more text\n" * 9])
    reading = corpus.documents("train")
    next(reading)
    (tmp_path / "000.txt").write_text("other")
    with pytest.raises(StrawberryError, match=r"000\.txt and 1 others: changed during"):
        list(reading)


def test_empty_corpora_and_lost_files_are_refused(tmp_path: Path) -> None:
    """No text at all, or a file that has gone, is one line with a name."""
    with pytest.raises(StrawberryError, match=r"000\.txt and 1 others: contains no text"):
        corpus_of(tmp_path, ["", ""])
    with pytest.raises(StrawberryError, match=r"gone\.txt: No such file"):
        FileCorpus(
            [tmp_path / "gone.txt"],
            read_documents,
            reader="test",
            data_division=0.9,
            identities=FileFingerprints(tmp_path),
        )
