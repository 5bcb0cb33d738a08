"""From text to tokens through the cache: made once, made whole, made anew when damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strawberry.contracts.data import DataSite
from strawberry.data import load_tokenizer, prepare, texts
from strawberry.data.bpe import byte_tokenizer
from strawberry.data.packed import PackedDataset, open_packed
from strawberry.data.texts import cached_bpe, sample, text_corpus, text_dataset, train_tokenizer
from strawberry.errors import StrawberryError
from strawberry.files.storage import FileFingerprints

TEXT = "".join(f"It was line {i} of {i * i}, or so they said.\n" for i in range(400))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A text file."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def opened(source: Path, cache: Path, stages: list[str] | None = None) -> PackedDataset:
    """The data set of that file, by a learnt tokenizer; `stages` collects what was done."""

    def progress(stage: str, done: int, total: int | None) -> None:
        assert total is None or 0 <= done <= total
        if stages is not None and stage not in stages:
            stages.append(stage)

    def tokenizer(corpus: texts.Corpus) -> texts.Tokenizer:
        return cached_bpe(
            corpus, 300, special_tokens=["<|eot|>"], pattern="gpt4", train_bytes=10**6,
            cache=cache, progress=progress,
        )  # fmt: skip

    site = DataSite(300, 16, 0, cache, (source.parent,), tokenizer, progress)
    corpus = text_corpus(["text.txt"], site.folders, cache=cache, progress=progress)
    return text_dataset(corpus, site)


def test_what_was_made_once_is_not_made_again(source: Path, cache: Path) -> None:
    """The first opening trains and encodes; the second only reads, and gives the same."""
    stages: list[str] = []
    first = opened(source, cache, stages)
    assert stages == ["reading", "counting words", "merging", "encoding"]
    again: list[str] = []
    second = opened(source, cache, again)
    assert not {"merging", "encoding"} & set(again)
    assert second.fingerprint == first.fingerprint
    assert first.tokenizer is not None
    assert TEXT.startswith(first.tokenizer.decode(first._ids["train"].parts[0][:50].tolist()))
    source.write_text(TEXT.replace("was", "is"))
    assert opened(source, cache).fingerprint != first.fingerprint


def test_a_damaged_cache_entry_is_made_anew(source: Path, cache: Path) -> None:
    """Truncate or alter any file of the cache: the next opening repairs it, to the byte."""
    fingerprint = opened(source, cache).fingerprint
    files = [p for kind in ("tokens", "tokenizers") for p in (cache / kind).rglob("*.*")]
    assert len(files) == 6
    for path in files:
        whole = path.read_bytes()
        for damage in (whole[: len(whole) // 2], b"", whole[:-9] + b"x" * 9):
            path.write_bytes(damage)
            stages: list[str] = []
            assert opened(source, cache, stages).fingerprint == fingerprint
            assert path.read_bytes() == whole
            assert any("because it was damaged" in stage for stage in stages)
    assert not list(cache.rglob(".*part*"))


def test_two_processes_make_an_entry_once(source: Path, cache: Path) -> None:
    """Started together on an empty cache, one makes it, the other waits, and both are served."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.data.test_texts import opened\n"
        "stages = []\n"
        "data = opened(Path(sys.argv[1]), Path(sys.argv[2]), stages)\n"
        "print(data.fingerprint, 'encoding' in stages)\n"
    )
    command = [sys.executable, "-c", program, str(source), str(cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].split() for process in started]
    assert answers[0][0] == answers[1][0]
    assert "True" in {answers[0][1], answers[1][1]}
    assert len(list((cache / "tokens").iterdir())) == 1


def test_a_writer_that_was_killed_leaves_nothing_visible(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end in the midst of encoding leaves no entry; the next opening makes it."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(texts, "pack", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(source, cache)
    assert not list((cache / "tokens").glob("*"))
    opened(source, cache)


def test_a_full_disk_is_one_line(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space left on the device is a message that names the folder, not a traceback."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(texts, "pack", full)
    with pytest.raises(StrawberryError, match=r"tokens.*: can't write: No space left on device"):
        opened(source, cache)


def test_a_sample_is_even_and_never_too_large(tmp_path: Path, cache: Path) -> None:
    """Of many documents every so many come; of one, its beginning; never more than asked."""
    (tmp_path / "a.jsonl").write_text("".join(f'"document {i:04} text"\n' for i in range(1000)))
    (tmp_path / "b.txt").write_text("x" * 10_000_000)
    many = text_corpus(["a.jsonl"], [tmp_path], cache=cache)
    chosen = list(sample(many, 1800))
    assert sum(map(len, chosen)) <= 1800
    assert len(chosen) == 1800 // 18
    numbers = [int(text.split()[1]) for text in chosen if len(text) == 18]
    assert max(numbers) - min(numbers) > 900
    assert list(sample(many, 10**9)) == list(many.documents("train"))
    one = text_corpus(["b.txt"], [tmp_path], cache=cache)
    assert sum(map(len, sample(one, 123_456))) == 123_456


def test_a_prepared_folder_stands_by_itself(source: Path, tmp_path: Path, cache: Path) -> None:
    """What `prepare` makes opens without its text, its cache or its recipe."""
    made = prepare([str(source)], tmp_path / "out", vocab_size=300)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "meta.json", "tokenizer.json", "train.tok", "val.tok",
    ]  # fmt: skip
    source.unlink()
    dataset = open_packed(tmp_path / "out", FileFingerprints(tmp_path / "nowhere"))
    assert dataset.n_tokens("train") == made.meta.n_tokens["train"]
    assert dataset.vocab_size == made.meta.vocab_size == 300
    assert dataset.tokenizer is not None
    assert dataset.tokenizer.fingerprint == made.meta.tokenizer


def test_prepare_takes_a_tokenizer(source: Path, tmp_path: Path) -> None:
    """With a tokenizer given, none is trained."""
    byte_tokenizer(["<|eot|>"]).save(tmp_path / "bytes.json")
    made = prepare([str(source)], tmp_path / "out", tokenizer=tmp_path / "bytes.json")
    assert made.meta.vocab_size == 257
    assert sum(made.meta.n_tokens.values()) == len(TEXT) + 2


def test_prepare_leaves_what_is_there_alone(source: Path, tmp_path: Path) -> None:
    """A folder with anything in it is refused, and so is a share that is none."""
    with pytest.raises(StrawberryError, match="exists and is not empty"):
        prepare([str(source)], tmp_path)
    with pytest.raises(StrawberryError, match=r"data_division must be between 0 and 1, got 1\.5"):
        prepare([str(source)], tmp_path / "out", data_division=1.5)
    assert source.read_text() == TEXT


def test_a_tokenizer_learns_of_all_the_text(source: Path, tmp_path: Path) -> None:
    """`train_tokenizer` holds nothing back, saves what it learnt, and says how much it read."""
    special = ["<|eot|>", "<|x|>"]
    made = train_tokenizer(
        [str(source)], tmp_path / "t.json", vocab_size=300, special_tokens=special
    )
    assert made.n_bytes == len(TEXT)
    assert made.tokenizer.special_tokens == {"<|eot|>": 298, "<|x|>": 299}
    assert load_tokenizer(tmp_path / "t.json").fingerprint == made.tokenizer.fingerprint
    with pytest.raises(StrawberryError, match="a folder; name the file"):
        train_tokenizer([str(source)], tmp_path, vocab_size=300)
