"""Terms and metrics by names that an evaluation has itself."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from strawberry.contracts import Component
from strawberry.contracts.terms import Term
from strawberry.referee.dependence import Breach, outputs
from strawberry.referee.places import named

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

OWN: Final = frozenset(["loss", "loss_se", "loss_teacher", "accuracy", "solved"])
"""Names of an evaluation's own metrics, each as `val_NAME`."""


@torch.no_grad()
def taken(model: LanguageModel, ids: Tensor) -> list[Breach]:
    """The components that return a term by one of these names."""
    seen: dict[str, str] = {}

    def note(path: str, module: nn.Module, result: Any) -> None:
        for term in result[1] if isinstance(result, tuple) and len(result) == 2 else ():
            if isinstance(term, Term) and term.name in OWN:
                seen.setdefault(term.name, named(path, module))  # inner ones first

    with contextlib.ExitStack() as stack:
        for path, module in model.named_modules():
            if isinstance(module, Component):
                hook = module.register_forward_hook(
                    lambda m, _, result, path=path: note(path, m, result)
                )
                stack.callback(hook.remove)
        outputs(model.hidden, ids)
    return [
        Breach("loss", 1.0, f"its term {name!r} has the name of an evaluation's own metric", where)
        for name, where in seen.items()
    ]
