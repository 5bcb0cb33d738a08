"""SOAP: Adam in the eigenbasis of Shampoo (Vyas et al. 2024, arXiv 2409.11321, algorithm 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Beta, OptimizerSite, OptimizerSource, ParameterInfo
from strawberry.plugin import Kind
from strawberry.recipe import ComponentSpec
from strawberry_pytorch_optimizer.library import library


class SOAP(OptimizerSource):
    """Adam in the eigenbasis of each matrix's row and column statistics; the rest goes to `rest`.

    `L <- b L + (1 - b) g g^T`, `R <- b R + (1 - b) g^T g`; the step is Adam's in the
    eigenvectors of both.

    Matrices that are one tensor in the model, such as q, k and v, are stepped one by one. The state
    of an m x n matrix is two m x n, two m x m and two n x n ones. A side wider than
    `max_precondition_dim` stays unchanged.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        betas: decay of the running mean and of the running mean square.
        shampoo_beta: decay of the row and column statistics; null takes the second of `betas`.
        precondition_frequency: steps between two updates of the eigenbasis.
        max_precondition_dim: widest side that gets a basis of its own.
        eps: added to the root of the mean square.
        weight_decay: share of the learning rate by which matrices shrink each step.
        rest: the optimizer of everything else.
    """

    unit = "matrix"

    def __init__(
        self,
        site: OptimizerSite,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        betas: tuple[Beta, Beta] = (0.95, 0.95),
        shampoo_beta: Beta | None = None,
        precondition_frequency: Annotated[int, Ge(1)] = 10,
        max_precondition_dim: Annotated[int, Ge(1)] = 10000,
        eps: Annotated[float, Gt(0)] = 1e-8,
        weight_decay: Annotated[float, Ge(0)] = 0.01,
        rest: Annotated[ComponentSpec, Kind("optimizer")] = "strawberry/adamw",  # type: ignore[assignment]
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.shampoo_beta = shampoo_beta
        self.precondition_frequency = precondition_frequency
        self.max_precondition_dim = max_precondition_dim
        self.eps = eps
        self.weight_decay = weight_decay
        self.rest = rest

    def claims(self, info: ParameterInfo) -> bool:
        """Hidden matrices and stacks of them."""
        return info.kind in ("matrix", "bank")

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's SOAP."""
        optimizer: torch.optim.Optimizer = library().SOAP(
            [info.parameter for info in infos],
            lr=lr,
            weight_decay=self.weight_decay,
            betas=self.betas,
            shampoo_beta=self.shampoo_beta,
            precondition_frequency=self.precondition_frequency,
            max_precondition_dim=self.max_precondition_dim,
            eps=self.eps,
        )
        return optimizer
