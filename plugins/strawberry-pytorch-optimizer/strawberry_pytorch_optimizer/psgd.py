"""PSGD with Kronecker factors (Li 2015, arXiv 1512.04202; Pooladzandi and Li 2024, 2402.04553)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le

from strawberry.contracts import Beta, OptimizerSite, OptimizerSource, ParameterInfo
from strawberry.plugin import Kind
from strawberry.recipe import ComponentSpec
from strawberry_pytorch_optimizer.library import library


class PSGD(OptimizerSource):
    """Whitens each matrix's gradient by a triangular factor a side; the rest goes to `rest`.

    The step is `Q_1^T Q_1 g Q_2^T Q_2`, with triangular Q that make its entries white.

    Matrices that are one tensor in the model, such as q, k and v, are taken one by one.

    The factors follow from the gradients by steps of their own, drawn at random: at first at each
    step, later at one in thirty or so, unless `update_probability` says otherwise.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        momentum: fraction of the old momentum that is kept.
        update_probability: share of the steps that update the factors; null falls from 1 to 0.03.
        max_size_triangular: widest side with a triangular factor; a wider one has a diagonal.
        balance_prob: share of those updates that also make the factors of a matrix equally large.
        weight_decay: share of the learning rate by which matrices shrink each step.
        rest: the optimizer of everything else.
    """

    unit = "matrix"

    def __init__(
        self,
        site: OptimizerSite,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        momentum: Beta = 0.9,
        update_probability: Annotated[float, Gt(0), Le(1)] | None = None,
        max_size_triangular: Annotated[int, Ge(0)] = 8192,
        balance_prob: Annotated[float, Ge(0), Le(1)] = 0.01,
        weight_decay: Annotated[float, Ge(0)] = 0.1,
        rest: Annotated[ComponentSpec, Kind("optimizer")] = "strawberry/adamw",  # type: ignore[assignment]
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.update_probability = update_probability
        self.max_size_triangular = max_size_triangular
        self.balance_prob = balance_prob
        self.weight_decay = weight_decay
        self.rest = rest

    def claims(self, info: ParameterInfo) -> bool:
        """Hidden matrices and stacks of them."""
        return info.kind in ("matrix", "bank")

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's Kron; without opt-einsum its products would cost the square."""
        optimizer: torch.optim.Optimizer = library("opt_einsum").Kron(
            [info.parameter for info in infos],
            lr=lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            pre_conditioner_update_probability=self.update_probability,
            max_size_triangular=self.max_size_triangular,
            balance_prob=self.balance_prob,
        )
        return optimizer
