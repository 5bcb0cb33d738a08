"""Muon: momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024).

The steps are those of torch.optim.Muon, which has no stacks of matrices, and which iterates in
bfloat16 on a CPU too: without instructions for it, many times slower than in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from strawberry.model.contracts import (
    Beta,
    Optimizer,
    ParameterInfo,
    is_shard,
    local,
    placed_like,
    whole,
)
from strawberry.plugin import Kind
from strawberry.recipe.spec import ComponentSpec


class Muon(Optimizer):
    """Takes hidden matrices and stacks of them; embeddings, heads and vectors go to `rest`.

    In a stack, such as that of a mixture's experts, each matrix is orthogonalised by itself.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        momentum: share of the old momentum that is kept.
        momentum_warmup: steps in which the momentum rises from 0.85 to `momentum`; 0 for none.
        nesterov: look one step ahead along the momentum.
        ns_steps: Newton-Schulz iterations.
        weight_decay: share of the learning rate by which parameters shrink each step.
        adjust_lr: `original` scales the rate of an (m, n) matrix by sqrt(max(1, m / n));
            `match_rms_adamw` by 0.2 sqrt(max(m, n)), so that rates of AdamW fit.
        rest: the optimizer of everything else.
    """

    shards = True
    needs_whole = True

    def __init__(
        self,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        momentum: Beta = 0.95,
        momentum_warmup: Annotated[int, Ge(0)] = 0,
        nesterov: bool = True,
        ns_steps: Annotated[int, Ge(1)] = 5,
        weight_decay: Annotated[float, Ge(0)] = 0.1,
        adjust_lr: Literal["original", "match_rms_adamw"] = "original",
        rest: Annotated[ComponentSpec, Kind("optimizer")] = "strawberry/adamw",  # type: ignore[assignment]
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.momentum_warmup = momentum_warmup
        self.nesterov = nesterov
        self.ns_steps = ns_steps
        self.weight_decay = weight_decay
        self.adjust_lr = adjust_lr
        self.rest = rest

    def claims(self, info: ParameterInfo) -> bool:
        """Hidden matrices and stacks of them."""
        return info.kind in ("matrix", "bank")

    def make(
        self,
        infos: Sequence[ParameterInfo],
        *,
        lr: float,
        device: torch.device,
    ) -> torch.optim.Optimizer:
        """The optimizer below."""
        defaults = {
            "lr": lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "ns_steps": self.ns_steps,
            "weight_decay": self.weight_decay,
            "adjust_lr": self.adjust_lr,
        }
        return OrthogonalMomentum([info.parameter for info in infos], defaults)

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the momentum of this step, a pure function of it."""
        if self.momentum_warmup:
            done = min(step / self.momentum_warmup, 1.0)
            for group in optimizer.param_groups:
                group["momentum"] = (1 - done) * 0.85 + done * self.momentum


class OrthogonalMomentum(torch.optim.Optimizer):
    """Steps by the momentum's nearest orthogonal matrix, for (m, n) and for (E, m, n).

    M <- mu M + (1 - mu) G; W <- (1 - lr decay) W - lr scale(m, n) orthogonal(U), where U is M, or
    mu M + (1 - mu) G looking ahead.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self._momentum(parameter, group).to(precision(parameter.device))
                update = orthogonal_shard(momentum, group["ns_steps"])
                scale = SCALES[group["adjust_lr"]](*parameter.shape[-2:])
                mine = local(parameter)
                mine.mul_(1 - group["lr"] * group["weight_decay"])
                mine.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """U, with the gradient taken into the momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum


SCALES: dict[str, Callable[[int, int], float]] = {
    "original": lambda m, n: math.sqrt(max(1, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}
"""What the rate of an (m, n) matrix is multiplied by."""


def precision(device: torch.device) -> torch.dtype:
    """What to iterate in: rounding does no harm, as singular values need only be near 1."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def orthogonal_shard(matrices: Tensor, steps: int) -> Tensor:
    """This rank's shard of `orthogonal(matrices)`; all of it where tensors are whole.

    Of a stack, shards are whole matrices. A single matrix is gathered and done by every rank, so
    that nothing has to be sent back.
    """
    if is_shard(matrices) and matrices.ndim == 3:
        mine = local(matrices)
        return orthogonal(mine, steps) if len(mine) else mine
    return local(placed_like(orthogonal(whole(matrices), steps), matrices))


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """Each of the matrices (m, n) or (E, m, n) with singular values near 1: a quintic iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    add = torch.addmm if matrices.ndim == 2 else torch.baddbmm
    X = matrices.mT if tall else matrices
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        A = X @ X.mT
        B = add(A, A, A, beta=b, alpha=c)
        X = add(X, B, X, beta=a)
    return X.mT if tall else X
