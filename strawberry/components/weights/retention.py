"""The retention rules: weights of a recursion step from those of the previous step.

A matrix (out, in) is processed as rows of `side` entries, (P, side). side is the model width C if
`in` is a multiple of it, as in the original project, whose parts are all rows of C; else it is
`in`. A stack of experts' matrices has one more dimension in front, and each is updated separately.

With W the current weights, T the transform, M and V square matrices, g the gain, n the fan-in of
the part, and N_n(X) = X n^-0.5 / (std(X) + 1e-8), the deviation over all entries of the part:

    swap      W' = N_n(g T * silu(W) + W),                        T' = W
    oa        W' = g T * silu(W) + W,   T = N_P(W M);             computed with N_n(W)
    bilinear  W' = N_n(g (silu(W) * T) (W^T T n^-0.5) + W),       T' = W
    mlp       W' = tau N_n(W + g silu(W M) V^T)

All of it is in float32 at least, and the gradient passes through the standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.components.norm.rmsnorm import unit_rms
from strawberry.contracts import wide

Rule: TypeAlias = Literal["swap", "oa", "bilinear", "mlp"]

SWAPS: frozenset[Rule] = frozenset({"swap", "bilinear"})
"""The rules whose transform is the previous step's weights."""

MIXES: dict[Rule, tuple[str, ...]] = {"oa": ("mix",), "mlp": ("mix", "back"), "swap": ()}
MIXES["bilinear"] = ()
"""The square matrices of each rule: M is `mix`, V is `back`."""

STD_EPS = 1e-8


@dataclass(frozen=True, slots=True)
class Update:
    """Operands of an update of one part besides the weights; None where the rule has none.

    Attributes:
        rule: the rule.
        fan_in: n.
        rms: W and T enter with rows of root mean square 1.
        gain: g; None for 1.
        mix: M, (side, side), or one for each of several.
        back: V, as M.
        tau: its absolute value is the scale of the result.
    """

    rule: Rule
    fan_in: int
    rms: bool = False
    gain: Tensor | None = None
    mix: Tensor | None = None
    back: Tensor | None = None
    tau: Tensor | None = None

    def __call__(self, W: Tensor, T: Tensor | None) -> Tensor:
        """The next weights (..., P, side) from the current ones and, if the rule swaps, T."""
        if self.rms:
            W, T = _rms(W), None if T is None else _rms(T)
        if self.rule == "swap":
            assert T is not None
            return normalised(W + self._scaled(T * F.silu(W)), self.fan_in)
        if self.rule == "bilinear":
            assert T is not None
            inner = (W.mT @ T) * self.fan_in**-0.5
            return normalised(W + self._scaled((F.silu(W) * T) @ inner), self.fan_in)
        assert self.mix is not None
        if self.rule == "oa":
            transform = normalised(W @ self.mix, W.shape[-2])
            return W + self._scaled(transform * F.silu(W))
        assert self.back is not None
        assert self.tau is not None
        change = F.silu(W @ self.mix) @ self.back.mT
        return self.tau.abs() * normalised(W + self._scaled(change), self.fan_in)

    def used(self, W: Tensor) -> Tensor:
        """The matrix in use for the weights W."""
        return normalised(W, self.fan_in) if self.rule == "oa" else W

    def _scaled(self, change: Tensor) -> Tensor:
        return change if self.gain is None else self.gain * change


def normalised(W: Tensor, n: int) -> Tensor:
    """N_n: the standard deviation of each matrix (..., P, side) becomes n^-0.5; its mean stays."""
    return W * (n**-0.5 / (W.std(dim=(-2, -1), keepdim=True) + STD_EPS))


def side_of(in_features: int, n_embd: int) -> int:
    """The row length in which a matrix of that fan-in is processed."""
    return in_features if in_features % n_embd else n_embd


def rows(matrix: Tensor, side: int) -> Tensor:
    """(..., out, in) -> (..., P, side), in float32 at least."""
    return torch.unflatten(wide(matrix).flatten(-2), -1, (-1, side))


def _rms(W: Tensor) -> Tensor:
    return unit_rms(W, 1e-12)
