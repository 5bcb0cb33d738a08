"""A depth for each token, chosen before the first step (Mixture-of-Recursions, token choice).

Bae et al. 2025, arXiv 2507.10524, section 2.2.1: a linear router reads the token once and gives a
distribution over depths 1..R. The token runs as many steps as the most likely depth and leaves with
`H + p * f(H)`, where f is all its steps in sequence, and p the depth's probability. The choice
depends on the token alone, so it is causal in training and generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from strawberry.components.routing import ExpertRouter as Chooser, RouterLosses
from strawberry.contracts import Routed, Router, RouterSite, State


class TokenChoiceRouter(Router):
    """Each token chooses its number of steps.

    `y = x + p f(x)` with f all of a token's steps in turn, as many as is most likely by
    `softmax(x W^T)`, and p the probability of that number.

    Args:
        gate: `softmax` over the depths, or a `sigmoid` for each depth.
        scale: factor on the chosen depth's gate; null takes 1 for a softmax and 0.1 for sigmoids.
        balance_loss: weight of the Switch balance loss over depths, which is 1 at perfect balance.
        z_loss: weight of the mean squared logsumexp of the logits.
        bias_rate: step of the bias that balances the depths without a loss; 0 for none.
    """

    def __init__(
        self,
        site: RouterSite,
        *,
        gate: Literal["softmax", "sigmoid"] = "softmax",
        scale: Annotated[float, Gt(0)] | None = None,
        balance_loss: Annotated[float, Ge(0)] = 0.1,
        z_loss: Annotated[float, Ge(0)] = 1e-5,
        bias_rate: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__()
        self.steps = site.steps
        self.depths = Chooser(
            site.n_embd,
            site.steps,
            1,
            gate=gate,
            normalize=False,
            scale=scale if scale is not None else (1.0 if gate == "softmax" else 0.1),
            bias_rate=bias_rate,
            losses=RouterLosses(balance=balance_loss, z=z_loss),
            name="depth",
        )

    def route(
        self, x: Tensor, step: int, carried: State, length: int, real: Tensor | None
    ) -> Routed:
        """All tokens (B, T, C) at first, when depths are chosen; then those with a larger depth."""
        if step:
            return Routed(carried["last"] >= step, carried)
        B, T, _ = x.shape
        choice = self.depths(x.flatten(0, 1))
        last = choice.expert.view(B, T)
        if self.max_steps is not None:
            last = last.clamp(max=self.max_steps - 1)
        carried = {"last": last, "gate": choice.gate.view(B, T), "first": x}
        return Routed(torch.ones_like(last, dtype=torch.bool), carried, choice.terms, size=T)

    def merge(self, x: Tensor, y: Tensor, step: int, carried: State) -> Tensor:
        """`H + p * y`, (B, K, C), at a token's last step, y before."""
        leaving = carried["first"] + carried["gate"][..., None].to(y.dtype) * y
        return torch.where((carried["last"] == step)[..., None], leaving, y)

    def shares(self) -> Sequence[float]:
        """Expected shares for balanced depths: all run the first step, 1/R the last."""
        return [(self.steps - step) / self.steps for step in range(self.steps)]
