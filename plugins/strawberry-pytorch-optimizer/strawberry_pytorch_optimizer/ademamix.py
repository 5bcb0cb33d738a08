"""AdEMAMix (Pagliardini et al. 2024, arXiv 2409.03137, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo
from strawberry.errors import FieldError
from strawberry_pytorch_optimizer.library import library


class AdEMAMix(DecayingSource):
    """AdamW with a second, slow momentum; takes every parameter.

    The step is `(m_1 + alpha m_2) / (sqrt(v) + eps)`, with a fast mean m_1 and a slow mean m_2
    of g.

    Args:
        betas: decay of the fast mean, of the mean square, and of the slow mean.
        alpha: weight of the slow mean.
        warmup: steps over which `alpha` and the slow decay rise; null for none.
        eps: added to the root of the mean square.
    """

    def __init__(
        self,
        site: OptimizerSite,
        *,
        betas: tuple[Beta, Beta, Beta] = (0.9, 0.999, 0.9999),
        alpha: Annotated[float, Ge(0)] = 5.0,
        warmup: Annotated[int, Ge(1)] | None = None,
        eps: Annotated[float, Gt(0)] = 1e-8,
        **shared: Any,
    ) -> None:
        if warmup is not None and 0 in (betas[0], betas[2]):
            raise FieldError("betas", "warmup needs both means' decay to be above 0")
        super().__init__(site, **shared)
        self.betas = betas
        self.alpha = alpha
        self.warmup = warmup
        self.eps = eps

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's AdEMAMix."""
        optimizer: torch.optim.Optimizer = library().AdEMAMix(
            self.groups(infos),
            lr=lr,
            betas=self.betas,
            alpha=self.alpha,
            t_alpha_beta3=self.warmup,
            weight_decouple=True,
            eps=self.eps,
        )
        return optimizer
