"""A reader of a forward pass is told what shapes go in and come out, and what the letters mean."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from strawberry import contracts

SOURCES = sorted(Path(contracts.__file__).parents[1].rglob("*.py"))
SAYING = {"forward", "route", "merge", "attend", "extend_kv"}
"""Functions that take and give tensors of the model."""

LEGEND = re.search(r"Shapes, .*?Other", contracts.__doc__ or "", re.DOTALL)
COMMON = set(re.findall(r"\b[A-Z]\b", LEGEND[0] if LEGEND else ""))
"""The letters that the legend of the contracts explains once for all."""

SHAPE = re.compile(r"\((?=[^()]*,)(?:\.\.\.|[A-Z]\b)[^()]*\)|\(\.\.\.\)|\(\w+,\)")
NAMED = re.compile(r"_[A-Z]+$")


def functions(tree: ast.AST, context: str) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Functions and methods, without those inside of functions; each with the texts around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{context} {ast.get_docstring(node) or ''}")
        elif isinstance(node, ast.FunctionDef):
            yield node, context


def tensors(function: ast.FunctionDef) -> list[str]:
    """The names of parameters that are tensors."""
    given = [*function.args.args, *function.args.kwonlyargs]
    return [a.arg for a in given if a.annotation and "Tensor" in ast.unparse(a.annotation)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: "/".join(p.parts[-3:]))
def test_shapes_are_said(path: Path) -> None:
    """Every forward says its shapes, and every letter in a shape is explained where it stands."""
    tree = ast.parse(path.read_text())
    for function, around in functions(tree, ast.get_docstring(tree) or ""):
        taken, own = tensors(function), ast.get_docstring(function) or ""
        if function.name not in SAYING or not taken:
            continue
        last = around if function.args.args[0].arg == "ctx" else own
        where = f"{path}:{function.lineno}: {function.name}"
        assert SHAPE.search(last) or all(map(NAMED.search, taken)), f"{where} says no shape"
        letters = {x for shape in SHAPE.findall(own) for x in re.findall(r"\b[A-Z]\b", shape)}
        told = set(re.findall(r"\b[A-Z]\b", re.sub(SHAPE, "", around + own)))
        assert letters <= COMMON | told, f"{where}: {letters - COMMON - told} is not explained"
