"""Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5), based on torch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from strawberry.contracts import DecayingSource, OptimizerSite, ParameterInfo

SMALLEST = 2e-19
"""Lower bound on the root of a mean square, and on a mean square's mean: the smallest number whose
square is a normal float32. Torch's default, float32's precision, exceeds a usual mean square."""


class _Unread(torch.optim.Adafactor):
    """Torch's Adafactor without the host reads of two norms for each parameter."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; returns the loss of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            kept: tuple[list[Any], ...] = ([], [], [], [], [], [])
            self._init_group(group, *kept)
            for tensors in zip(*kept, strict=True):
                _update(group, *tensors)
        return loss


def _update(
    group: dict[str, Any],
    parameter: Tensor,
    grad: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    square: Tensor | None,
    count: Tensor,
) -> None:
    """One parameter's step: mean squares, then the update, clipped and relative to the parameter.

    `row` (..., m, 1), `column` (..., 1, n) and, for a vector, `square` are its mean squares;
    `count` is on the CPU.
    """
    (least, smallest), lr = group["eps"], group["lr"]
    count += 1
    step = count.item()
    fresh = step ** group["beta2_decay"]
    size = _rms(parameter).clamp(min=smallest)
    if group["weight_decay"]:
        parameter.mul_(1 - lr * group["weight_decay"])
    if row is not None and column is not None:
        for kept, dim in ((row, -1), (column, -2)):
            kept.lerp_(grad.norm(dim=dim, keepdim=True).square_().div_(grad.shape[dim]), fresh)
        estimate = (row @ column).div_(row.mean(-2, keepdim=True).clamp_(min=least))
    else:
        assert square is not None
        estimate = square.lerp_(grad.square(), fresh).clone()
    update = estimate.clamp_(min=least * least).rsqrt_().mul_(grad)
    rate = size * min(lr, step**-0.5) / (_rms(update) / group["d"]).clamp(min=1)
    parameter.sub_(update.mul_(rate))


def _rms(x: Tensor) -> Tensor:
    return x.norm() / math.sqrt(x.numel())


class Adafactor(DecayingSource):
    """Adam's second moment as a row and a column; takes every parameter, with little state.

    `v_{ij} = r_i c_j / mean(r)`, with r and c the running means of the squared gradient's rows
    and columns; then `w <- w - lr rms(w) g / sqrt(v)`, with a step that is too large for its
    size cut down.

    The mean square of an (m, n) gradient is stored as its m row means and its n column means, that
    of a vector in full. There is no first moment. Matrices that are one tensor in the model, such
    as q, k and v, or the experts of a stack, are stepped one by one.

    The step is relative: `lr` is the change of a parameter as a fraction of its root mean square,
    so good rates are 0.01 and more, for any shape. As in the paper, step t uses at most the
    fraction 1 / sqrt(t), for any schedule (at 0.01 this begins after 10,000 steps).

    Args:
        decay_power: the mean square at step t keeps 1 - t^-decay_power of its old value.
        clip: maximum root mean square of an update before it is scaled.
        min_scale: replaces the root mean square of smaller parameters, such as new zeros.
    """

    unit = "matrix"
    update = "relative"

    def __init__(
        self,
        site: OptimizerSite,
        *,
        decay_power: Annotated[float, Gt(0), Le(1)] = 0.8,
        clip: Annotated[float, Ge(1)] = 1.0,
        min_scale: Annotated[float, Gt(0)] = 1e-3,
        weight_decay: Annotated[float, Ge(0)] = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(site, weight_decay=weight_decay, **shared)
        self.decay_power = decay_power
        self.clip = clip
        self.min_scale = min_scale

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """torch.optim.Adafactor, one tensor after another: all at once would take the memory of a
        second model, which is what Adafactor is there to save.
        """  # noqa: D205
        return _Unread(
            self.groups(infos),
            lr=lr,
            beta2_decay=-self.decay_power,
            eps=(SMALLEST, self.min_scale),
            d=self.clip,
            foreach=False,
        )

    def rate(self, optimizer: torch.optim.Optimizer) -> float:
        """Factor on the schedule's rate: at most 1 / sqrt(t) at step t."""
        steps = [float(state["step"]) for state in optimizer.state.values() if "step" in state]
        return min(super().rate(optimizer), max(steps, default=1.0) ** -0.5)
