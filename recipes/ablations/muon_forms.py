"""Forms of Muon that were tried against it; `muon_forms.yaml` is the plan, recipes/LOG.md the end.

Loaded by `strawberry --plugin recipes/ablations/muon_forms.py`. NorMuon and the polar form are
given every matrix as a parameter of its own, and don't step shards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from strawberry.components.optimizer.muon import (
    Coefficients,
    Muon,
    OrthogonalMomentum,
    orthogonal_all,
)
from strawberry.contracts import ParameterInfo
from strawberry.plugin import hookimpl

POLAR_EXPRESS: tuple[Coefficients, ...] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
"""Amsel et al. 2025, arXiv 2505.16932, algorithm 1: five steps, for singular values above 1e-3."""

SAFETY = 1.01
"""What they divide singular values by, against rounding: all polynomials but the last."""


class FusedMuon(Muon):
    """Muon as it was: what is one tensor is one matrix."""

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """Of parameters that say nothing of the matrices in them."""
        return super().make([replace(i, parts=None) for i in infos], lr=lr, device=device)


class Form(Muon):
    """Muon whose optimizer computes its updates in another way."""

    shards = False
    stepper: type[OrthogonalMomentum]

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """Muon's optimizer, of the class `stepper`."""
        optimizer = super().make(infos, lr=lr, device=device)
        optimizer.__class__ = self.stepper
        return optimizer


class PolarMomentum(OrthogonalMomentum):
    """The same but for the coefficients."""

    def _updates(
        self, parameters: Sequence[nn.Parameter], pieces: list[list[Tensor]], group: dict[str, Any]
    ) -> Iterator[Tensor]:
        a, b, c = zip(*POLAR_EXPRESS, strict=True)
        safe = [SAFETY] * (len(POLAR_EXPRESS) - 1) + [1.0]
        polynomials = [
            (x / s, y / s**3, z / s**5) for x, y, z, s in zip(a, b, c, safe, strict=True)
        ]
        return orthogonal_all([each for row in pieces for each in row], polynomials)


class PolarMuon(Form):
    """By the polynomials that are best for each step of the iteration, each in its place."""

    stepper = PolarMomentum


class NormalisedMomentum(OrthogonalMomentum):
    """The matrix keeps the Frobenius norm of an orthogonal one."""

    def _updates(
        self, parameters: Sequence[nn.Parameter], pieces: list[list[Tensor]], group: dict[str, Any]
    ) -> Iterator[Tensor]:
        updates = super()._updates(parameters, pieces, group)
        for parameter, row in zip(parameters, pieces, strict=True):
            for number in range(len(row)):
                yield self._normalised(next(updates), self.state[parameter], f"rows_{number}")

    def _normalised(self, update: Tensor, state: dict[str, Any], name: str) -> Tensor:
        square = update.square().mean(-1, keepdim=True)
        if name not in state:
            state[name] = torch.zeros_like(square)
        mean = state[name].lerp_(square, 0.05)
        update = update / (mean.sqrt() + 1e-8)
        norm = update.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
        return update * (min(update.shape[-2:]) ** 0.5 / norm)


class NorMuon(Form):
    """Each row of the orthogonal matrix divided by the root of its own running mean square.

    Li et al. 2025, arXiv 2510.05491, algorithm 1, with beta2 0.95.
    """

    stepper = NormalisedMomentum


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them as optimizers."""
    registry.optimizer("muon_fused", FusedMuon)
    registry.optimizer("muon_polar", PolarMuon)
    registry.optimizer("normuon", NorMuon)
