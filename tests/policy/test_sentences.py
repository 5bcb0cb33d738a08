"""Sentences that people read are short, and use the usual words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    *sorted((ROOT / "strawberry").rglob("*.py")),
    *sorted(path for path in (ROOT / "plugins").glob("*/strawberry_*/**/*.py")),
]
GUIDES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "plugins/README.md",
          "recipes/README.md", "recipes/ablations/README.md", "tools/README.md")  # fmt: skip
HABITS = re.compile(
    r"\b(com(?:e|es|ing) to|anew|beside|told|so many|go(?:es|ing)? on|way back|all the same)\b",
    re.IGNORECASE,
)
SUBJECTLESS = re.compile(r"(Whether|What|Who|Whose)\b[^?]*$")


def sentences(text: str) -> list[str]:
    """Sentences of at least two words; code and links count as one word."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "code", text)
    parts = re.split(r"(?<=[.!?:])[)\"*]*\s+(?=[A-Z\[*\"(0-9]|code)|\n\n", text)
    return [part for part in parts if len(part.split()) > 1]


def strings(tree: ast.Module) -> Iterator[str]:
    """Constants that are no docstrings, as text; a placeholder becomes X."""
    documented = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in documented:
            yield str(node.value)


def prose(page: str) -> str:
    """The running text of a guide, without code blocks, tables, headings and pictures."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "#", "!", "    "))]
    items = "\n".join(re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", line) for line in lines)
    return re.sub(r"(?<!\n)\n(?!\n)", " ", items)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_messages_are_short_and_plain(path: Path) -> None:
    """No message or help text has a sentence of more than 40 words, or one of our old habits."""
    for text in strings(ast.parse(path.read_text())):
        assert [part for part in sentences(text) if len(part.split()) > 40] == []
        assert " " not in text or HABITS.search(text) is None, text


@pytest.mark.parametrize("page", GUIDES)
def test_guides_are_plain(page: str) -> None:
    """A guide's sentences have fewer than 20 words on average, and none of our old habits."""
    parts = sentences(prose(page))

    assert sum(len(part.split()) for part in parts) / len(parts) < 20
    assert HABITS.findall(prose(page)) == []


def test_docstrings_begin_with_a_subject() -> None:
    """Hardly any docstring of the library begins with a clause that has no subject."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = [
        ast.get_docstring(node) or ""
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
    ]
    first = [doc.split("\n\n")[0] for doc in docs if doc]

    assert sum(bool(SUBJECTLESS.match(doc)) for doc in first) < 0.02 * len(first)
