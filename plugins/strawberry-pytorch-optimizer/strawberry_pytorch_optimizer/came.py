"""CAME (Luo et al. 2023, arXiv 2307.02047, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Beta, Decay, OptimizerSource, ParameterInfo, decay_groups
from strawberry_pytorch_optimizer.library import library


class CAME(OptimizerSource):
    """Adafactor with a mean, trusted where it has been right; takes every parameter.

    Matrices that are one tensor in the model, such as q, k and v, are stepped one by one. Of an
    (m, n) matrix it keeps the mean, and m + n numbers for each of two mean squares.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        betas: decay of the mean, of the mean square, and of the mean squared residual.
        clip: largest root mean square of an update before it is scaled.
        weight_decay: share of the learning rate by which parameters shrink each step.
        decay: what shrinks: `matrices` (two dimensions and more) or `all`.
    """

    unit = "matrix"

    def __init__(
        self,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        betas: tuple[Beta, Beta, Beta] = (0.9, 0.999, 0.9999),
        clip: Annotated[float, Gt(0)] = 1.0,
        weight_decay: Annotated[float, Ge(0)] = 0.1,
        decay: Decay = "matrices",
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.clip = clip
        self.weight_decay = weight_decay
        self.decay = decay

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's CAME."""
        optimizer: torch.optim.Optimizer = library().CAME(
            decay_groups(infos, self.weight_decay, self.decay),
            lr=lr,
            betas=self.betas,
            clip_threshold=self.clip,
            weight_decouple=True,
        )
        return optimizer
