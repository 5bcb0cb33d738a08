"""Check that a class follows its contract, before anything is built."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

from strawberry.errors import PluginError
from strawberry.plugin.signature import source_of


@functools.cache
def check_class(cls: type, contract: type) -> None:
    """Refuse a class that can't be a component of that contract.

    Raises:
        PluginError: it is not a subclass, lacks a method, is not constructed with `(site, *,
            fields)`, or has a method that can't be called as the contract calls it. All problems
            are reported, each with the file and the line.
    """
    problems = list(_problems(cls, contract))
    if problems:
        raise PluginError("; ".join(problems))


def _problems(cls: type, contract: type) -> Iterator[str]:
    if not issubclass(cls, contract):
        yield f"{cls.__name__} ({_line(cls)}) is not a {contract.__name__}"
        return
    for name in sorted(getattr(cls, "__abstractmethods__", ())):
        yield f"{cls.__name__} ({_line(cls)}) lacks `{_wanted(contract, name)}`"
    for name, why in cls.asked() if hasattr(contract, "asked") else ():  # type: ignore[attr-defined]
        if inspect.getattr_static(cls, name) is inspect.getattr_static(contract, name):
            yield f"{cls.__name__} ({_line(cls)}) lacks `{_wanted(contract, name)}`: {why}"
    yield from _constructor(cls)
    for name, method in inspect.getmembers(contract, inspect.isfunction):
        own = inspect.getattr_static(cls, name, None)
        if name.startswith("_") or own is method or not isinstance(own, types.FunctionType):
            continue
        expected = inspect.signature(method)
        if not _accepts(inspect.signature(own), expected):
            has = _call(name, inspect.signature(own))
            yield f"`{has}` ({_line(own)}) can't be called as `{_call(name, expected)}`"


def _wanted(contract: type, name: str) -> str:
    """A method as the contract calls it; a property by its name."""
    method = getattr(contract, name, None)
    return _call(name, inspect.signature(method)) if inspect.isfunction(method) else name


def _constructor(cls: type) -> Iterator[str]:
    constructor = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    if not isinstance(constructor, types.FunctionType):
        return
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    handed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    others = [p for p in handed[1:] if p.default is p.empty]  # the rest is for subclasses to give
    if not handed or handed[0].name != "site" or others:
        has = ", ".join(["self", *(p.name for p in handed), "..."])
        yield (
            f"`__init__({has})` ({_line(constructor)}): a component is constructed with "
            "`(self, site, *, fields)`"
        )


def _accepts(own: inspect.Signature, wanted: inspect.Signature) -> bool:
    """Return whether a method can be called with every argument of the contract's."""
    parameters = wanted.parameters.values()
    given = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named: dict[str, Any] = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    try:
        own.bind(*given, **named)
    except TypeError:
        return False
    return True


def _call(name: str, signature: inspect.Signature) -> str:
    """A method as it is called: `forward(x, use)`."""
    words = []
    for parameter in list(signature.parameters.values())[1:]:
        star = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        equals = "=" if parameter.kind is parameter.KEYWORD_ONLY else ""
        words.append(f"{star}{parameter.name}{equals}")
    return f"{name}({', '.join(words)})"


def _line(what: type | types.FunctionType) -> str:
    """The location of a class or a function: `file:line`."""
    if isinstance(what, types.FunctionType):
        return f"{what.__code__.co_filename}:{what.__code__.co_firstlineno}"
    place = source_of(what)
    return f"{place[0]}:{place[1]}" if place else f"{what.__module__}:{what.__qualname__}"
