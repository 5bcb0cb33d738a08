"""Code of components in places that are not theirs: a loss, an evaluation, a part of torch.

A component can replace a function that it is judged by. So each function of Strawberry's modules,
and of torch and numpy where they compute, is asked which file its code is in.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType, WrapperDescriptorType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from strawberry.referee.dependence import Breach

if TYPE_CHECKING:
    from strawberry.plugin import Plugins

OURS: Final = "strawberry"
_FUNCTIONS: Final = (FunctionType, MethodType, functools.partial)
_PLACES: Final = (torch, torch.Tensor, nn.functional, nn.Module, np, np.ndarray, math)


def files_of(plugins: Plugins | None) -> list[str]:
    """The files of plugins that are loaded, and the folders of those that are packages."""
    entries = plugins.registry.entries() if plugins is not None else []
    names = (entry.where.partition(":")[0] for entry in entries if entry.plugin != OURS)
    return _files(dict.fromkeys(names))


def files_of_model(model: nn.Module) -> list[str]:
    """The same of the classes that a model consists of."""
    return _files(dict.fromkeys(type(module).__module__ for module in model.modules()))


def _files(modules: Iterable[str]) -> list[str]:
    files = dict[str, None]()
    for name in modules:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if file is not None and name.partition(".")[0] not in (OURS, "torch"):
            files[str(Path(file).parent) + os.sep if "." in name else file] = None
    return list(files)


def replaced(files: Iterable[str], parts: Iterable[object] = ()) -> list[Breach]:
    """Each function that runs code of these files in a place that is Strawberry's, or torch's.

    Args:
        files: of components, and folders of them.
        parts: objects, of which those of Strawberry's own classes are looked at too.
    """
    wanted = tuple(files)
    if not wanted:
        return []
    breaches = []
    for where, name, value in (*_of_modules(), *_of_parts(parts)):
        file, line = _code(value)
        if file.startswith(wanted):
            detail = f"{where}.{name} is replaced by {file}:{line}"
            breaches.append(Breach("code", 1.0, detail))
    return breaches


def _of_modules() -> Iterator[tuple[str, str, Any]]:
    """Yield (owner, name, value) for the attributes of modules and of the classes in them."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == OURS and isinstance(module, ModuleType):
            for attribute, value in list(vars(module).items()):
                yield name, attribute, value
                if isinstance(value, type) and value.__module__ == name:
                    yield from _of_class(f"{name}.{attribute}", value)
    for place in _PLACES:
        yield from _of_class(place.__name__, place)


def _of_class(name: str, holder: object) -> Iterator[tuple[str, str, Any]]:
    yield from ((name, *item) for item in list(vars(holder).items()))


def _of_parts(parts: Iterable[object]) -> Iterator[tuple[str, str, Any]]:
    """The same of objects; what can be called, but is no function, is a component."""
    for part in parts:
        if type(part).__module__.partition(".")[0] not in (OURS, "torch"):
            continue
        slots = [name for cls in type(part).__mro__ for name in getattr(cls, "__slots__", ())]
        named = {name: getattr(part, name) for name in slots if hasattr(part, name)}
        for attribute, value in {**named, **getattr(part, "__dict__", {})}.items():
            if isinstance(value, _FUNCTIONS):
                yield type(part).__qualname__, attribute, value


def _code(value: Any) -> tuple[str, int]:
    """File and line of what a call of this runs; none where it isn't Python's."""
    for _ in range(8):
        if isinstance(value, FunctionType):
            return value.__code__.co_filename, value.__code__.co_firstlineno
        if isinstance(value, (staticmethod, classmethod, MethodType)):
            value = value.__func__
        elif isinstance(value, functools.partial):
            value = value.func
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, type):
            return getattr(sys.modules.get(value.__module__), "__file__", None) or "", 1
        else:
            value = vars(type(value)).get("__call__")
            if value is None or isinstance(value, WrapperDescriptorType):  # data, or of C
                break
    return "", 0
