"""Matrices that follow from parameters, kept between calls until a parameter changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from strawberry.contracts import has_values


class _Steps:
    """How many steps torch's optimizers have taken in this process, since something was kept."""

    taken = 0
    counted = False

    @classmethod
    def count(cls) -> None:
        """Count from here on; a second call changes nothing."""
        if not cls.counted:
            register_optimizer_step_post_hook(cls._more)
            cls.counted = True

    @classmethod
    def _more(cls, *_: object) -> None:
        cls.taken += 1


class ParameterCache:
    """The values of one function of some parameters.

    A change is seen by torch's own count of in-place changes, and by the storage, which `.to()`
    replaces; it is held, so that no later one can have its address. Fused optimizers raise no
    count, so any optimizer's step counts as a change. Writing through `parameter.data` is not seen.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        _Steps.count()
        self.values: list[Tensor] = []
        self.carried: list[Tensor] = []
        self.seen = [(p.detach(), p._version) for p in parameters]  # noqa: SLF001 (public in C++)
        self.steps = _Steps.taken
        self.inference = torch.is_inference_mode_enabled()

    def fits(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these parameters are still what the values were computed from."""
        modes = (_Steps.taken, torch.is_inference_mode_enabled())
        return (self.steps, self.inference) == modes and all(
            old.data_ptr() == new.data_ptr()
            and (old.dtype, old.device, version) == (new.dtype, new.device, new._version)  # noqa: SLF001
            for (old, version), new in zip(self.seen, parameters, strict=True)
        )


def may_keep(parameters: Sequence[Tensor]) -> bool:
    """Whether values can be kept: not for a gradient, nor inside a compiled graph."""
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or any(p.is_inference() or not has_values(p) for p in parameters)
    )
