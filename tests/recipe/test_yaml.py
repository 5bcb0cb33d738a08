"""The reader: what scalars mean, where they stand, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from strawberry.errors import RecipeError, StrawberryError
from strawberry.recipe.yaml import dump, parse, read_tree


def refusal(text: str) -> str:
    """The message with which a text is refused."""
    with pytest.raises(RecipeError) as caught:
        parse(text, "f")
    return str(caught.value)


@pytest.mark.faults(35)
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-2", -2), ("+7", 7), ("0", 0),
        (".inf", math.inf), ("-.inf", -math.inf), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("no", "no"), ("yes", "yes"), ("on", "on"),
        ("off", "off"), ("1:30", "1:30"), ("12_000", "12_000"), ("0x10", "0x10"), ("0o7", "0o7"),
        ("2024-01-01", "2024-01-01"), ("'3e-4'", "3e-4"), ('"true"', "true"), ("=", "="),
        ("a b", "a b"), ("${HOME}", "${HOME}"), ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    """Scalars mean what YAML 1.2's core schema says, and what people mean."""
    assert parse(f"a: {text}\n", "f").plain() == {"a": value}


@pytest.mark.faults(35)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 012\n", "f:1:4: 012 starts with 0; write 12, or '012' for text"),
        ("a: -007\n", "f:1:4: -007 starts with 0; write 7, or '-007' for text"),
        ("a: 9223372036854775808\n", "f:1:4: a number of 19 digits is too large"),
        ("a: 1\nb: 2\na: 3\n", "f:3:1: duplicate key 'a'; first on line 1"),
        ("a: {b: 1}\nc: {<<: {b: 1}}\n", "f:2:5: merge keys (<<) are refused; use `extends`"),
        ("? [a]\n: 1\n", "f:1:3: a key must be a word"),
        (f"? {'a' * 300}\n: 1\n", "f:1:3: a key must be a word"),
        ("a: !foo b\n", "f:1:4: tags such as !foo are refused"),
        ("a: *b\n", "f:1:4: there is no anchor &b above; "
         "quote text that begins with *"),
        ("a: 1\n---\nb: 2\n", "f:2:1: a recipe must be one document, not several"),
        ('a: "\\ud800"\n', "f:1:4: an escape stands for half a character"),
        ('a: "\\UFFFFFFFF"\n', "f:1:7: an escape stands for no character"),
        ("a: \x07\n", "f:1:4: is not text: YAML doesn't allow character 0x7"),
        ("a: [1, 2\nb: 3\n", "f:2:2: expected ',' or ']', but got ':' "
                             "(while parsing a flow sequence)"),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str) -> None:
    """What could be misread is refused at its place."""
    assert refusal(text) == message


def test_several_slips_at_once() -> None:
    """Slips that leave the rest readable are told together."""
    lines = refusal("a: 012\na: 1\nb: !x y\n").splitlines()

    assert [line.split(":")[1] for line in lines] == ["1", "2", "3"]


def test_places() -> None:
    """A value's place is where it begins, and a key's place is kept beside it."""
    tree = parse("a:\n  b: [1, {c: 2}]\n", "f")

    assert str(tree.find(("a", "b", 1, "c"))) == "f:2:14"
    assert str(tree.value["a"].keys["b"]) == "f:2:3"
    assert str(tree.find(("a", "missing"))) == "f:2:3"


def test_aliases_are_allowed() -> None:
    """An anchor's value may be used again."""
    assert parse("a: &x {b: 1}\nc: *x\n", "f").plain() == {"a": {"b": 1}, "c": {"b": 1}}


def test_json_with_comments(tmp_path: Path) -> None:
    """JSON with // comments and tabs is read, and its places are those of the file."""
    file = tmp_path / "c.json"
    file.write_text('{\n\t"a": "http://x", // "not": {\n\t"b":\t[1e-3, true, null]\n}\n')

    tree = read_tree(file)

    assert tree.plain() == {"a": "http://x", "b": [1e-3, True, None]}
    assert str(tree.find(("b",))) == f"{file}:3:7"


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte-order mark is not part of the text."""
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")

    assert read_tree(file).plain() == {"a": 1}


@pytest.mark.parametrize("name", ["missing.yaml", "a\0b.yaml", "."])
def test_unreadable(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be read is said in a line."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(StrawberryError, match="can't read"):
        read_tree(Path(name))


def test_endless_file() -> None:
    """A device without an end is refused like any large file."""
    with pytest.raises(RecipeError, match="too large"):
        read_tree(Path("/dev/zero"))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(
        ["3e-4", "012", "08", "no", "null", "1:30", ".5", "~", "<<", "=", "1e5", "-", "\x85"]
    )
)
KEYS = st.text("abc_-*", min_size=1, max_size=4)


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=12,
    )
)
def test_what_is_dumped_reads_back(value: Any) -> None:
    """Any plain data survives being written and read."""
    assert parse(dump({"a": value}), "f").plain() == {"a": value}
