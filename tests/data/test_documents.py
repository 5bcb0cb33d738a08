"""Which files a path means, and which documents are in them; each mistake has its position."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from strawberry.data.documents import find_files, read_documents
from strawberry.errors import StrawberryError


def read(folder: Path, name: str, content: str | bytes, field: str = "text") -> list[str]:
    """The documents of a file with that content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_documents(path, field))


def test_each_kind_of_file_gives_its_documents(tmp_path: Path) -> None:
    """Text is one document, JSON lines one a line, a JSON list one an item; empty ones go."""
    assert read(tmp_path, "a.txt", "one\r\ntwo\n") == ["one\r\ntwo\n"]
    assert read(tmp_path, "a.txt", b"\xef\xbb\xbfmarked") == ["marked"]
    assert read(tmp_path, "a.txt", "") == []
    lines = '{"text": "x\u2028y"}\n\n"plain"\n{"text": ""}\r\n'
    assert read(tmp_path, "a.jsonl", lines) == ["x\u2028y", "plain"]
    assert read(tmp_path, "a.jsonl", '{"body": "b", "text": 1}', "body") == ["b"]
    assert read(tmp_path, "a.json", json.dumps(["a", "", {"text": "b"}])) == ["a", "b"]
    assert read(tmp_path, "a.json", '["\\ud800"]') == ["\ufffd"]
    assert read(tmp_path, "a.py", "any suffix") == ["any suffix"]


@pytest.mark.faults(29)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\ntwo \xff\n", r"a\.txt:2: not UTF-8: byte 0xff at offset 8"),
        ("a.txt", b"\0\1\2", r"a\.txt: a binary file"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a\.jsonl:2:10: not JSON"),
        ("a.jsonl", '"a"\n3\n', r"a\.jsonl:2: expected text, not a int"),
        ("a.jsonl", '{"body": ""}', r"a\.jsonl:1: no field 'text' in this object \(it has body\)"),
        ("a.json", '{"text": "a"}', r"a\.json: expected a list of strings at the top, not a dict"),
        ("a.json", '["a", 2]', r"a\.json: item 1: expected text, not a int"),
        ("a.json", '[\n"a",\n]', r"a\.json:3:1: not JSON|a\.json:2:4: not JSON"),
        ("a.json", "[" * 100_000, r"a\.json:1: not JSON: nested too deeply"),
        ("a.json", "[" + "9" * 9999 + "]", r"a\.json:1: not JSON"),
        ("a.txt", gzip.compress(b"text", mtime=0), r"a\.txt: compressed with gzip"),
    ],
)
def test_wrong_content_is_named_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    """What a file should not hold is one line with file, line and reason."""
    with pytest.raises(StrawberryError, match=message) as caught:
        read(tmp_path, name, content)
    assert "\n" not in str(caught.value)


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
