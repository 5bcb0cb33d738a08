"""Matrices derived from parameters, cached between calls until a parameter changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from strawberry.contracts import has_values


class _Steps:
    """Number of steps of torch's optimizers in this process, since a value was first cached."""

    taken = 0
    counted = False

    @classmethod
    def count(cls) -> None:
        """Start counting; a second call changes nothing."""
        if not cls.counted:
            register_optimizer_step_post_hook(cls._more)
            cls.counted = True

    @classmethod
    def _more(cls, *_: object) -> None:
        cls.taken += 1


class ParameterCache:
    """The cached values of one function of some parameters.

    A change is detected by torch's counter of in-place changes, and by the storage, which `.to()`
    replaces; the storage is held, so that a later one can't have its address. Fused optimizers
    don't increase the counter, so any optimizer's step counts as a change. Writes through
    `parameter.data` are not detected.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        _Steps.count()
        self.values: list[Tensor] = []
        self.carried: list[Tensor] = []
        self.seen = [(p.detach(), p._version) for p in parameters]  # noqa: SLF001 (public in C++)
        self.steps = _Steps.taken
        self.inference = torch.is_inference_mode_enabled()

    def fits(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether the values were computed from these parameters, unchanged."""
        modes = (_Steps.taken, torch.is_inference_mode_enabled())
        return (self.steps, self.inference) == modes and all(
            old.data_ptr() == new.data_ptr()
            and (old.dtype, old.device, version) == (new.dtype, new.device, new._version)  # noqa: SLF001
            for (old, version), new in zip(self.seen, parameters, strict=True)
        )


def may_keep(parameters: Sequence[Tensor]) -> bool:
    """Return whether values can be cached: not with gradients, nor inside a compiled graph."""
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or any(p.is_inference() or not has_values(p) for p in parameters)
    )
