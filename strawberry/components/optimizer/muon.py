"""Muon: momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024), by torch.optim.Muon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt

from strawberry.model.contracts import Optimizer, ParameterInfo
from strawberry.plugin import Kind
from strawberry.recipe.spec import ComponentSpec


class Muon(Optimizer):
    """Takes the hidden matrices; embeddings, heads, vectors and stacks of matrices go to `rest`.

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

    def __init__(
        self,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.95,
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
        """Hidden matrices alone."""
        return info.kind == "matrix"

    def make(
        self,
        infos: Sequence[ParameterInfo],
        *,
        lr: float,
        device: torch.device,
    ) -> torch.optim.Optimizer:
        """torch.optim.Muon."""
        return torch.optim.Muon(
            [info.parameter for info in infos],
            lr=lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.ns_steps,
            weight_decay=self.weight_decay,
            adjust_lr_fn=self.adjust_lr,
        )

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the momentum of this step, a pure function of it."""
        if self.momentum_warmup:
            done = min(step / self.momentum_warmup, 1.0)
            for group in optimizer.param_groups:
                group["momentum"] = (1 - done) * 0.85 + done * self.momentum
