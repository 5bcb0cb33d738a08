"""Split parameters into their matrices, for optimizers that treat each matrix separately."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from strawberry.contracts import OptimizerSource, ParameterInfo, Unit


@dataclass(frozen=True, slots=True)
class _Fused:
    """A parameter of several matrices, and a separate parameter for each of them.

    If a matrix's rows are contiguous, its parameter shares their memory; for rows in groups
    (`copied`) it is a copy.
    """

    info: ParameterInfo
    own: tuple[nn.Parameter, ...]
    copied: tuple[bool, ...]


class SplitMatrices:
    """The parameters that an optimizer steps, kept consistent with the model's.

    Attributes:
        infos: the given ones, or their matrices or heads, by the optimizer's `unit`.
    """

    def __init__(self, factory: OptimizerSource, infos: Sequence[ParameterInfo]) -> None:
        self.unit: Unit = factory.unit
        self.fused: list[_Fused] = []
        self.infos: list[ParameterInfo] = []
        whole = factory.unit == "parameter" or factory.shards
        for info in infos:
            self.infos += [info] if whole else self._parts(info)

    def _parts(self, info: ParameterInfo) -> list[ParameterInfo]:
        """The matrices of a parameter; itself, if it is one."""
        if info.parameter.ndim == 0 or info.kind == "embedding":
            return [info]
        named = list(_matrices(info, info.parameter.detach(), self.unit))
        if len(named) == 1:
            return [info]
        copied = [_scattered(rows) for _, rows in named]
        own = [nn.Parameter(rows.flatten(0, 1)) for _, rows in named]
        self.fused.append(_Fused(info, tuple(own), tuple(copied)))
        kind = "matrix" if info.kind == "bank" else info.kind
        return [
            replace(info, name=f"{info.name}[{name}]", parameter=parameter, kind=kind, parts=None)
            for (name, _), parameter in zip(named, own, strict=True)
        ]

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Let every step of the optimizer begin with `take` and end with `put_back`."""
        if self.fused:
            optimizer.register_step_pre_hook(lambda *_: self.take())
            optimizer.register_step_post_hook(lambda *_: self.put_back())

    @torch.no_grad()
    def take(self) -> None:
        """Give each matrix its part of the gradient, and copies their values."""
        for fused in self.fused:
            whole = fused.info.parameter
            gradient = whole.grad
            gradients: list[Tensor | None] = [None] * len(fused.own)
            if gradient is not None:
                gradients = list(self._rows(fused, gradient.contiguous()))
            every = zip(fused.own, fused.copied, self._rows(fused, whole), gradients, strict=True)
            for own, copied, rows, part in every:
                own.grad = None if part is None else part.flatten(0, 1)
                if copied:
                    own.copy_(rows.flatten(0, 1))

    @torch.no_grad()
    def put_back(self) -> None:
        """Write copies back into the parameters."""
        for fused in self.fused:
            every = zip(
                fused.own, fused.copied, self._rows(fused, fused.info.parameter), strict=True
            )
            for own, copied, rows in every:
                if copied:
                    rows.copy_(own.view(rows.shape))

    def _rows(self, fused: _Fused, tensor: Tensor) -> list[Tensor]:
        return [rows for _, rows in _matrices(fused.info, tensor, self.unit)]


def _matrices(info: ParameterInfo, tensor: Tensor, unit: Unit) -> Iterator[tuple[str, Tensor]]:
    """(name, rows) of each matrix or head: views (groups, rows of a group, ...) of the tensor."""
    layout = info.layout
    for part, view in zip(layout.parts, layout.views(tensor), strict=True):
        for copy, groups in enumerate(view):
            name = f"{part.name}.{copy}" if len(view) > 1 else part.name
            if unit == "matrix" or part.heads == 1:
                yield name, groups
                continue
            heads = groups.unflatten(1, (-1, part.rows // part.heads)).flatten(0, 1)
            for head, rows in enumerate(heads):
                yield f"{name}.{head}", rows[None]


def _scattered(rows: Tensor) -> bool:
    """Return whether the groups of (groups, rows, ...) are not contiguous."""
    return len(rows) > 1 and rows.stride(0) != rows.shape[1] * rows.stride(1)
