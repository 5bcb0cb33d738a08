"""Schedule-free AdamW (Defazio et al. 2024, arXiv 2405.15682, eq. 2-4 and algorithm 1).

Three sequences: z takes the steps; x, the mean of z, is evaluated and saved; and gradients are
taken at y = (1 - beta) z + beta x, which the parameters hold during training. x is not stored: it
follows from y and z.
"""

# ruff: noqa: SLF001 (so torch names what works on many tensors at once)

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo


class ScheduleFreeAdamW(DecayingSource):
    """AdamW with averaged weights instead of a decaying learning rate; takes every parameter.

    `y = (1 - b) z + b x`, where gradients are taken; `z <- z - lr u` with AdamW's step u; and
    the average `x <- (1 - c) x + c z`.

    Validation, checkpoints and generation use the average. Step t has a weight in it of the square
    of the largest learning rate up to t, so a warm-up counts little. A suitable schedule is `wsd`
    with `train.cooldown_frac: 0`, which is only a warm-up.

    Args:
        betas: fraction of the average in the point where gradients are taken, and decay of the
            running mean square.
        eps: added to the root of the mean square.
    """

    shards = True

    def __init__(
        self,
        site: OptimizerSite,
        *,
        betas: tuple[Annotated[float, Gt(0), Lt(1)], Beta] = (0.9, 0.95),
        eps: Annotated[float, Gt(0)] = 1e-8,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.betas = betas
        self.eps = eps

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """Return `ScheduleFree(...)`."""
        groups = self.groups(infos)
        defaults = {"lr": lr, "betas": self.betas, "eps": self.eps, "lr_max": 0.0}
        return AveragingAdamW(groups, defaults)

    @contextlib.contextmanager
    def evaluating(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Put x into the parameters; y goes into the state meanwhile, so that it is saved too."""
        with torch.no_grad():
            for parameter, beta in _stepped(optimizer):
                state = optimizer.state[parameter]
                state["y"] = parameter.detach().clone()
                parameter.lerp_(state["z"], 1 - 1 / beta)
        try:
            yield
        finally:
            self.loaded(optimizer)

    @torch.no_grad()
    def loaded(self, optimizer: torch.optim.Optimizer) -> None:
        """Restore y into the parameters, bit for bit."""
        for parameter, _ in _stepped(optimizer):
            if "y" in optimizer.state[parameter]:
                parameter.copy_(optimizer.state[parameter].pop("y"))


def _stepped(optimizer: torch.optim.Optimizer) -> Iterator[tuple[torch.nn.Parameter, float]]:
    """The parameters that have been stepped, each with its first beta."""
    for group in optimizer.param_groups:
        yield from ((p, group["betas"][0]) for p in group["params"] if optimizer.state.get(p))


class AveragingAdamW(torch.optim.Optimizer):
    """The three sequences, over all tensors of a group at once.

    With the step u = g / (sqrt(v / (1 - beta2^t)) + eps) + decay y, z <- z - lr u moves y by (1 -
    beta) of it. The mean x <- (1 - c) x + c z then moves y by c towards z. Here c is this step's
    weight divided by the sum of all weights so far.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            group["lr_max"] = max(group["lr_max"], group["lr"])
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            weight = group["lr_max"] ** 2
            states = [self._counted(p, weight) for p in parameters]
            updates = self._updates(group, parameters, states)
            z = [state["z"] for state in states]
            torch._foreach_add_(z, updates, alpha=-group["lr"])
            moved = (1 - group["betas"][0]) * group["lr"]
            torch._foreach_add_(parameters, updates, alpha=-moved)
            shares = [weight / (state["weights"] or 1.0) for state in states]
            torch._foreach_lerp_(parameters, z, shares)

    def _counted(self, parameter: Tensor, weight: float) -> dict[str, Any]:
        """The state of a parameter, with this step counted."""
        state = self.state[parameter]
        if not state:
            state["z"] = parameter.detach().clone()
            state["square"] = torch.zeros_like(parameter)
            state["step"], state["weights"] = 0, 0.0
        state["step"] += 1
        state["weights"] += weight
        return state

    @staticmethod
    def _updates(
        group: dict[str, Any], parameters: list[Tensor], states: list[dict[str, Any]]
    ) -> list[Tensor]:
        """The step u of each parameter."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        squares = [state["square"] for state in states]
        beta2 = group["betas"][1]
        corrections = [1 - beta2 ** state["step"] for state in states]
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        roots = list(torch._foreach_div(squares, corrections))
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        updates = list(torch._foreach_div(gradients, roots))
        torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        return updates
