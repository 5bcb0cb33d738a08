"""Side effects of a pass: attributes that forward writes, and the lines that do so."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

_MODULES_OWN: Final = ("strawberry.model.", "strawberry.referee.", "torch.")


class _Holder(NamedTuple):
    """Something with attributes that the code of a component can write.

    Attributes:
        cls: the component's class, whose code is read for the line.
        values: the attributes, a dict or a view of one.
        path: the module, in the model; empty for classes and globals.
    """

    cls: type
    values: Any
    path: str = ""


class Write(NamedTuple):
    """An attribute that is not as it was: its name, what has it, and the line that writes it."""

    name: str
    values: Any
    line: str
    path: str


def changed(model: nn.Module, run: Callable[[], object]) -> list[Write]:
    """Each attribute that `run` leaves otherwise than it was.

    Looked at are modules, their buffers, their classes, and the globals of the files these are in.
    """
    holders = list(_holders(model))
    before = [{name: _mark(value) for name, value in holder.values.items()} for holder in holders]
    run()
    return [
        Write(name, holder.values, _line(holder.cls, name), holder.path)
        for holder, marks in zip(holders, before, strict=True)
        for name, value in list(holder.values.items())
        if name not in marks or not _same(marks[name], _mark(value))
    ]


def writes(model: nn.Module, run: Callable[[], object]) -> list[str]:
    """`FILE:LINE (NAME)` of each attribute that `run` leaves otherwise than it was."""
    return list(dict.fromkeys(write.line for write in changed(model, run)))


def left_by(model: nn.Module, run: Callable[[], object], kind: str) -> str:
    """For messages: what `run` leaves behind, where it matters for this kind of dependence."""
    lines = writes(model, run) if kind == "history" else []
    return f", by what is kept at {', '.join(lines)}" if lines else ""


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Give modules' attributes and buffers back what they were before, afterwards."""
    before = [(holder.values, dict(holder.values)) for holder in _instances(model)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for values, kept in before:
            values.clear()
            values.update(kept)
        with torch.no_grad():
            for buffer, content in buffers:
                buffer.copy_(content)


def _instances(model: nn.Module) -> Iterator[_Holder]:
    """The attributes and buffers of components and what they consist of."""
    for path, module in model.named_modules():
        cls = type(module)
        if not cls.__module__.startswith(_MODULES_OWN):
            where = f"{path} ({cls.__name__})"
            yield _Holder(cls, module.__dict__, where)
            yield _Holder(cls, module._buffers, where)  # noqa: SLF001 (those that are None too)


def _holders(model: nn.Module) -> Iterator[_Holder]:
    instances = list(_instances(model))
    yield from instances
    classes = dict.fromkeys(holder.cls for holder in instances)
    for cls in classes:
        yield _Holder(cls, vars(cls))
        yield _Holder(cls, vars(sys.modules[cls.__module__]))


def _mark(value: Any) -> tuple[Any, ...]:
    """A fingerprint that detects a change of the value, or in it."""
    if isinstance(value, Tensor):
        return value, value._version  # noqa: SLF001 (torch counts writes there)
    if isinstance(value, dict):
        return value, *value.keys(), *value.values()
    return (value, *value) if isinstance(value, (list, tuple, set)) else (value,)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        a is b or (isinstance(a, (int, float, str)) and type(a) is type(b) and a == b)
        for a, b in pairs
    )


def _line(cls: type, name: str) -> str:
    """Where the code of a class writes `name`; its own first line where that isn't to be found."""
    for owner in cls.__mro__:
        if owner.__module__.startswith(_MODULES_OWN) or owner is object:
            continue
        try:
            source, first = inspect.getsourcelines(owner)
            file = Path(inspect.getsourcefile(owner) or "?")
        except (OSError, TypeError):
            continue
        tree = ast.parse(textwrap.dedent("".join(source)))
        for at in _written(tree, name):
            return f"{file}:{first + at - 1} ({name})"
    return f"{cls.__module__}.{cls.__qualname__} ({name})"


def _written(tree: ast.AST, name: str) -> Iterator[int]:
    """Lines outside of `__init__` that assign `name`, or call a method of it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.name == "__init__":
            continue
        for inner in ast.walk(node):
            targets: list[ast.AST] = []
            if isinstance(inner, ast.Assign):
                targets = list(inner.targets)
            elif isinstance(inner, (ast.AugAssign, ast.AnnAssign)):
                targets = [inner.target]
            elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
                targets = [inner.func.value]
            if any(_names(part, name) for target in targets for part in ast.walk(target)):
                yield inner.lineno  # type: ignore[attr-defined]


def _names(node: ast.AST, name: str) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == name) or (
        isinstance(node, ast.Name) and node.id == name
    )
