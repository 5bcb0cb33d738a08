"""The errors that docstrings name exist."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("strawberry", "plugins", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NAME = r"[A-Z][A-Za-z]+"
SENTENCE = re.compile(rf"\b[Rr]aises ({NAME}(?:(?:, or|, and| or| and|,) (?:a |an )?{NAME})*)")


def raised(doc: str) -> set[str]:
    """The errors that a docstring names, in sentences and in its section `Raises:`."""
    words = [name for found in SENTENCE.findall(doc) for name in re.findall(NAME, found)]
    section = re.search(r"^Raises:\n((?: +.*\n?)+)", doc, flags=re.MULTILINE)
    return {*words, *re.findall(rf"^ {{4}}({NAME}):", section[1] if section else "", re.MULTILINE)}


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that a module imports, wherever, and its classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ClassDef):
            yield node.name


def documented(tree: ast.AST) -> set[str]:
    """The errors in a module's docstrings."""
    docs = [ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, DOCUMENTED)]
    return {name for doc in docs for name in raised(doc)}


def test_errors_in_docstrings_exist() -> None:
    """Each is a class of the project, or a name that a module imports, or Python's.

    A module may name an error that only what it calls raises, so all classes count for all.
    """
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in SOURCES}
    known = {*dir(builtins), *(name for tree in trees.values() for name in defined(tree))}
    found = {path: documented(tree) - known for path, tree in trees.items()}
    assert {path: names for path, names in found.items() if names} == {}
    assert len({name for tree in trees.values() for name in documented(tree)}) > 10


@pytest.mark.parametrize(
    "doc",
    ["Raises Away if it is away.", "Raises:\n        Away: it is.", "It raises KeyError, or Away."],
)
def test_an_error_that_does_not_exist_is_found(doc: str) -> None:
    """In a sentence, after another error, and in a section."""
    tree = ast.parse(f'def f():\n    """Do it.\n\n    {doc}\n    """\n')
    assert documented(tree) - {*dir(builtins)} == {"Away"}
