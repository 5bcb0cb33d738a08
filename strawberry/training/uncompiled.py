"""torch's optimizers without torch's compiler.

`torch.optim` hides its methods from `torch.compile`, and imports the compiler to
do so: more than a second at the first optimizer of a process that compiles nothing. While nothing
else has imported the compiler, nothing can be compiling, so there is nothing to hide from: the
methods then run directly.

Torch's classes are changed for the whole process, so its owner does it: a verb of the command line,
or a trial's worker, before its first optimizer. No import does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

COMPILER = "torch._dynamo"


def spare_compiler(classes: Iterable[type] = ()) -> None:
    """Let methods of torch's optimizers, and of these, import the compiler only when it is in use.

    Methods that another torch version lacks stay unchanged. A second call changes nothing.
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
    """`method`, or the function it wraps while the compiler is not imported."""
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
