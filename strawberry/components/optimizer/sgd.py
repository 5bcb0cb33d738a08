"""SGD with momentum (Sutskever et al. 2013, ICML, eq. 1-4), by torch.optim.SGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo
from strawberry.errors import FieldError


class SGD(DecayingSource):
    """Stochastic gradient descent; takes every parameter.

    `b <- momentum b + (1 - dampening) g`, `w <- w - lr b`.

    With the gradient g, plus `weight_decay` times the weights, the momentum is b <- momentum b + (1
    - dampening) g (at the first step b = g). The weights move by -lr b; with `nesterov` by -lr (g +
    momentum b).

    Args:
        momentum: fraction of the old momentum that is kept; 0 needs no state.
        dampening: fraction of each gradient that does not enter the momentum.
        nesterov: look one step ahead along the momentum.
        weight_decay: fraction of the weights that is added to the gradient.
    """

    shards = True
    update = "gradient"

    def __init__(
        self,
        site: OptimizerSite,
        *,
        momentum: Beta = 0.9,
        dampening: Beta = 0.0,
        nesterov: bool = False,
        weight_decay: Annotated[float, Ge(0)] = 0.0,
        **shared: Any,
    ) -> None:
        if nesterov and not momentum:
            raise FieldError("nesterov", "nesterov needs momentum above 0")
        if nesterov and dampening:
            raise FieldError("nesterov", "nesterov needs a dampening of 0")
        super().__init__(site, weight_decay=weight_decay, **shared)
        self.momentum = momentum
        self.dampening = dampening
        self.nesterov = nesterov

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """torch.optim.SGD, over many tensors at once where the device supports it.

        Not fused: that kernel fails if a parameter gets its first gradient after the others.
        """
        return torch.optim.SGD(
            self.groups(infos),
            lr=lr,
            momentum=self.momentum,
            dampening=self.dampening,
            nesterov=self.nesterov,
        )
