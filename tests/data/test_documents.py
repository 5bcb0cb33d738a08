"""Which files a path means, and which documents are in them; each mistake has its position."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from strawberry.data.documents import read_documents
from strawberry.data.files import find_files
from strawberry.errors import StrawberryError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def read(folder: Path, name: str, content: str | bytes, field: str = "text") -> list[str]:
    """The documents of a file with that content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_documents(path, field))


def test_each_kind_of_file_gives_its_documents(tmp_path: Path) -> None:
    """Text is one document, JSON lines one a line, a JSON list one an item; null is empty."""
    assert read(tmp_path, "a.txt", "one\r\ntwo\n") == ["one\r\ntwo\n"]
    assert read(tmp_path, "a.txt", b"\xef\xbb\xbfmarked") == ["marked"]
    assert read(tmp_path, "a.txt", "") == [""]
    lines = '{"text": "x\u2028y"}\n\n"plain"\n{"text": ""}\r\nnull\n{"text": null}\n'
    assert read(tmp_path, "a.jsonl", lines) == ["x\u2028y", "plain", "", "", ""]
    assert read(tmp_path, "a.jsonl", '{"body": "b", "text": 1}', "body") == ["b"]
    assert read(tmp_path, "a.json", json.dumps(["a", None, {"text": "b"}])) == ["a", "", "b"]
    assert read(tmp_path, "a.json", '["\\ud800"]') == ["\ufffd"]
    rows = '\ufeff{"text": "a", "n": 1}\r\n{"text": null}\n\n{"text": "b"}'
    for name in ("a.json", "a.ndjson", "a.jsonlines", "a.json.ndjson"):
        assert read(tmp_path, name, rows) == ["a", "", "b"]
    assert read(tmp_path, "a.py", "any suffix") == ["any suffix"]


@pytest.mark.faults(29)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\ntwo \xff\n", r"a\.txt:2: not UTF-8: byte 0xff at offset 8"),
        ("a.txt", b"\0\1\2", r"a\.txt: a binary file"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a\.jsonl:2:10: not JSON"),
        ("a.jsonl", '"a"\n3\n', r"a\.jsonl:2: expected text, got a int"),
        ("a.jsonl", '{"body": ""}', r"a\.jsonl:1: no field 'text' in this object \(it has body\)"),
        (
            "a.json",
            '{"text": "a"}',
            r"a\.json: expected a list at the top level, or an object on each",
        ),
        (
            "a.json",
            '{\n"text": "a"\n}',
            r"a\.json: expected a list at the top level, or an object on",
        ),
        ("a.json", '{"text": "a"}\n{"text": 3}', r"a\.json:2: expected text, got a int"),
        ("a.json", '["a", 2]', r"a\.json: item 1: expected text, got a int"),
        ("a.json", '[\n"a",\n]', r"a\.json:3:1: not JSON|a\.json:2:4: not JSON"),
        ("a.json", "[" * 100_000, r"a\.json:1: not JSON: nested too deeply"),
        ("a.json", "[" + "9" * 9999 + "]", r"a\.json:1: not JSON"),
        ("a.jsonl", '{"meta": {"text": 1}}', r"it has meta; did you mean 'meta\.text'\?"),
        ("a.jsonl", '{"txt": "a"}', r"it has txt; did you mean 'txt'\?"),
        ("a.txt", "text".encode("utf-16"), r"UTF-16, .* `iconv -f utf-16 -t utf-8`"),
        ("a.txt", "text of some length".encode("utf-16-be"), r"UTF-16BE, not UTF-8"),
        ("a.jsonl", '"text"\n'.encode("utf-32"), r"UTF-32, not UTF-8"),
        ("a.txt", b"PAR1\x15\x04", r"expected text, got a Parquet file: .*use: datasets"),
        ("a.txt", b"ARROW1\0\0", r"expected text, got an Arrow file"),
        ("a.txt", b"PK\x03\x04", r"expected text, got a zip archive: unpack it first"),
        ("a.txt", b"\0" * 257 + b"ustar", r"expected text, got a tar archive"),
        ("a.txt.gz", gzip.compress(b"\0" * 257 + b"ustar", mtime=0), "got a tar archive"),
        ("a.pdf", b"%PDF-1.7", r"expected text, got a PDF"),
        (
            "a.txt.gz",
            gzip.compress(b"a\xff", mtime=0),
            r"a\.txt\.gz:1: not UTF-8: byte 0xff at offset 1",
        ),
    ],
)
def test_wrong_content_is_named_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    """What a file should not hold is one line with file, line and reason."""
    with pytest.raises(StrawberryError, match=message) as caught:
        read(tmp_path, name, content)
    assert "\n" not in str(caught.value)


def compressed(kind: str, content: bytes) -> bytes:
    """Content as gzip, bzip2, xz and zstd have it, in two parts."""
    module: Any = {"gz": gzip, "bz2": bz2, "xz": lzma, "zst": zstd}[kind]
    one = module.compress
    return one(content[: len(content) // 2]) + one(content[len(content) // 2 :])


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_compressed_files(tmp_path: Path, kind: str) -> None:
    """They are what they are without; by content, so that a wrong suffix does no harm."""
    for name, content in {
        "a.txt": b"one\ntwo", "a.jsonl": b'"one"\n"two"\n', "a.json": b'["one", "two"]',
    }.items():  # fmt: skip
        plain = read(tmp_path, name, content)
        assert read(tmp_path, f"{name}.{kind}", compressed(kind, content)) == plain
        assert read(tmp_path, name, compressed(kind, content)) == plain
        assert read(tmp_path, f"{name}.{kind}", content) == plain
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / f"A.JSONL.{kind}").write_bytes(compressed(kind, b'"one"'))
    assert [file.name for file in find_files("below", [tmp_path])] == [f"A.JSONL.{kind}"]


@pytest.mark.faults(29)
@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_compressed_files_that_are_damaged(tmp_path: Path, kind: str) -> None:
    """What is cut short or altered is told, and never taken for a shorter text."""
    whole = compressed(kind, b'"a line of text"\n' * 500)
    for content in (whole[:-1], whole[: len(whole) // 3], whole[:30] + b"?????" + whole[35:]):
        with pytest.raises(StrawberryError, match=rf"a\.jsonl\.{kind}: damaged or truncated"):
            read(tmp_path, f"a.jsonl.{kind}", content)


def test_nested_fields(tmp_path: Path) -> None:
    """Dots lead into objects; a field whose own name has dots comes first; null stays null."""
    lines = '{"meta": {"text": "a"}}\n{"meta.text": "b"}\n{"meta": null}\n{"meta": {"text": null}}'
    assert read(tmp_path, "a.jsonl", lines, "meta.text") == ["a", "b", "", ""]
    with pytest.raises(StrawberryError, match=r"a\.jsonl:1: no field 'meta\.txt'"):
        read(tmp_path, "a.jsonl", lines, "meta.txt")


def test_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    """Documents come before the mistake of a later line, which is named with its place."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf"one"\n"two"\n"\xff"\n')
    documents = read_documents(path)
    assert [next(documents), next(documents)] == ["one", "two"]
    with pytest.raises(StrawberryError, match=r"a\.jsonl:3: not UTF-8: byte 0xff at offset 16"):
        next(documents)


class Canary:
    """An object whose unpickling would leave a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.faults(36)
@pytest.mark.parametrize("name", ["web.bin", "a.pt", "a.pkl", "a.strawberry", "a.txt", "a.json"])
def test_pickles_are_never_opened(tmp_path: Path, name: str) -> None:
    """A pickle is refused by name, or by content under an innocent name, and nothing runs."""
    canary = tmp_path / "canary"
    with pytest.raises(StrawberryError, match="never opened because a pickle can run code"):
        read(tmp_path, name, pickle.dumps(Canary(canary)))
    assert not canary.exists()


def test_a_path_is_a_file_a_folder_or_a_pattern(tmp_path: Path) -> None:
    """Folders give their text files, sorted and without hidden ones; patterns what they match."""
    for name in ("b/2.txt", "a.txt", "b/1.jsonl", "b/x.py", ".git/c.txt", "b/.d.txt", "z.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    def found(path: str, *folders: Path) -> list[str]:
        files = find_files(path, folders or (tmp_path,))
        return [file.relative_to(tmp_path).as_posix() for file in files]

    assert found(".") == ["a.txt", "b/1.jsonl", "b/2.txt", "z.json"]
    assert found("b/x.py") == ["b/x.py"]
    assert found("b/*.*") == ["b/1.jsonl", "b/2.txt", "b/x.py"]
    assert found("**/*.txt") == ["a.txt", "b/2.txt"]
    assert found(str(tmp_path / "a.txt")) == ["a.txt"]
    assert found("2.txt", tmp_path, tmp_path / "b") == ["b/2.txt"]
    (python,) = find_files(".", [tmp_path], suffixes=[".py"])
    assert python == tmp_path / "b/x.py"


def test_paths_that_lead_nowhere_say_where_was_looked(tmp_path: Path) -> None:
    """A missing path names the places, an empty folder what it should hold."""
    (tmp_path / "empty").mkdir()
    for path, message in {
        "none.txt": f"none.txt: no such file or folder; looked at {tmp_path}/none.txt",
        "*.nope": r"\*.nope: no file matches",
        "empty": r"empty: no files of these kinds in this folder: \.txt, \.md, \.json, \.jsonl",
        "": "the path is empty",
    }.items():
        with pytest.raises(StrawberryError, match=message):
            find_files(path, [tmp_path])


def test_links_are_followed(tmp_path: Path) -> None:
    """Links to folders and files count, each file once, and loops of links come to an end."""
    for name in ("data/own.txt", "away/a.txt", "away/deep/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "away")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "away")
    (tmp_path / "data" / "same.txt").symlink_to(tmp_path / "data" / "own.txt")
    for name in ("one", "two"):
        (tmp_path / "away" / "deep" / name).symlink_to(tmp_path / "data")
    for pattern in ("data", "data/**/*.txt", "**/*.txt"):
        found = {file.resolve() for file in find_files(pattern, [tmp_path])}
        assert found == {tmp_path / n for n in ("data/own.txt", "away/a.txt", "away/deep/b.txt")}
        assert len(find_files(pattern, [tmp_path])) == 3
    (tmp_path / "data" / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StrawberryError, match=r"gone: a link to .*nowhere, which does not exist"):
        find_files("data", [tmp_path])


def test_two_stars_stand_for_any_folders(tmp_path: Path) -> None:
    """As in a shell: also for none, in the middle, and at the end."""
    for name in ("a.txt", "b/a.txt", "b/c/ab.txt", "b/c/d/a.txt", ".h/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")

    def found(pattern: str) -> list[str]:
        return [f.relative_to(tmp_path).as_posix() for f in find_files(pattern, [tmp_path])]

    assert found("**/a.txt") == ["a.txt", "b/a.txt", "b/c/d/a.txt"]
    assert found("b/**/d/*.txt") == ["b/c/d/a.txt"]
    assert found("b/**") == ["b/a.txt", "b/c/ab.txt", "b/c/d/a.txt"]
    assert found("?/c/*") == ["b/c/ab.txt"]
