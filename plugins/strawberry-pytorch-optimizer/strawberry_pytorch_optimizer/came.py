"""CAME (Luo et al. 2023, arXiv 2307.02047, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo
from strawberry_pytorch_optimizer.library import library


class CAME(DecayingSource):
    """Adafactor with a mean, trusted where it has been right; takes every parameter.

    `m <- b_1 m + (1 - b_1) u`, with Adafactor's step u; the step is `m / sqrt(s)`, with s the
    mean of `(u - m)^2`, kept as a row and a column as v is.

    Matrices that are one tensor in the model, such as q, k and v, are stepped one by one. Of an
    (m, n) matrix it keeps the mean, and m + n numbers for each of two mean squares.

    Args:
        betas: decay of the mean, of the mean square, and of the mean squared residual.
        clip: maximum root mean square of an update before it is scaled.
    """

    unit = "matrix"

    def __init__(
        self,
        site: OptimizerSite,
        *,
        betas: tuple[Beta, Beta, Beta] = (0.9, 0.999, 0.9999),
        clip: Annotated[float, Gt(0)] = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.betas = betas
        self.clip = clip

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's CAME."""
        optimizer: torch.optim.Optimizer = library().CAME(
            self.groups(infos),
            lr=lr,
            betas=self.betas,
            clip_threshold=self.clip,
            weight_decouple=True,
        )
        return optimizer
