"""torch's optimizers without torch's compiler.

`torch.optim` keeps its methods out of what `torch.compile` sees, and imports the compiler to say
so: more than a second at the first optimizer of a process that compiles nothing. Until something
else has imported it, nothing can be in the middle of being compiled, and there is nothing to be
kept out of: then the methods run as they were written.

Torch's classes are changed for the whole process, so the owner of a process does it: a verb of the
command line, or a trial's worker, before its first optimizer. No import does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

COMPILER = "torch._dynamo"


def spare_compiler(classes: Iterable[type] = ()) -> None:
    """Let methods of torch's optimizers, and of these, import the compiler only where it is in use.

    What it can't find in another torch stays as it is, and takes its second. A second call changes
    nothing.
    """
    base = torch.optim.Optimizer
    for cls in (base, *base.__subclasses__(), *classes):
        for name, method in list(vars(cls).items()):
            if _imports_compiler(method):
                setattr(cls, name, _sparing(method, step=name == "step"))


def _imports_compiler(method: Any) -> bool:
    code = getattr(method, "__code__", None)
    return code is not None and COMPILER in code.co_names and hasattr(method, "__wrapped__")


def _sparing(method: Any, step: bool) -> Callable[..., Any]:
    """`method`, or what it wraps while no compiler is there; a step's gradients are switched."""
    plain = method.__wrapped__

    @functools.wraps(plain)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if COMPILER in sys.modules:
            return method(self, *args, **kwargs)
        if not step:
            return plain(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return plain(self, *args, **kwargs)

    return call
