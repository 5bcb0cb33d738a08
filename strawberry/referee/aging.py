"""Whether outputs depend on what a model keeps of its passes, such as a count of them.

A cheat that begins after a thousand passes shows nothing before. So what a pass and a step change
of a model is set to what it may come to, and the outputs are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from strawberry.referee.dependence import Breach, Limits, Run, difference, outputs
from strawberry.referee.writes import changed, undisturbed

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

AGE = 1_000_000
"""What counts are set to."""


def aged_breach(model: LanguageModel, run: Run, ids: Tensor) -> Breach | None:
    """The dependence of outputs (B, T, C) on numbers and tensors that passes leave behind.

    The model is left as it was.
    """

    def live() -> None:
        outputs(run, ids)
        if model.training:
            model.after_step()

    with undisturbed(model):
        left = changed(model, live)
        live()
        before = outputs(run, ids)
        for write in left:
            kept = write.values.get(write.name)
            if (aged := _aged(kept)) is None:
                continue
            write.values[write.name] = aged
            limits = Limits("history", ids, ids, torch.ones_like(ids, dtype=torch.bool))
            breach = difference(limits, before, outputs(run, ids))
            write.values[write.name] = kept
            if breach is not None:
                detail = f"outputs depend on what is kept at {write.line}"
                return Breach("history", breach.size, detail, write.path)
    return None


def _aged(value: Any) -> Any:
    """What a kept number or tensor may come to; None for what isn't one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return type(value)(AGE)
    if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
        return torch.full_like(value, True if value.dtype == torch.bool else AGE)
    return None
