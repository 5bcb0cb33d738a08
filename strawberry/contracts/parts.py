"""The matrices inside a parameter: q, k and v are one tensor for speed, but three matrices.

R is the number of rows of all parts together. A tensor that holds them is (R, n), biases (R,), or a
stack of either: (E, R, n) or (E R, n).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Unit: TypeAlias = Literal["parameter", "matrix", "head"]
"""The unit that an optimizer steps: a whole tensor, a matrix in it, or a head's rows."""

Declared: TypeAlias = Mapping[str, "int | tuple[int, int]"]
"""The rows of each matrix by name, in order: their number, or (heads, rows of a head)."""


@dataclass(frozen=True, slots=True)
class MatrixRows:
    """One matrix among the rows: its name, its rows, and the number of heads among them."""

    name: str
    rows: int
    heads: int = 1


@dataclass(frozen=True, slots=True)
class MatrixLayout:
    """All matrices among the rows of a projection.

    Attributes:
        parts: the parts, in the order of their rows.
        groups: number of groups of rows, each with an equal share of every part; 1 if each part's
            rows are contiguous.
    """

    parts: tuple[MatrixRows, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        for part in self.parts:
            shared = part.heads if part.heads > 1 else self.groups
            if part.rows < 1 or part.rows % shared or shared % self.groups:
                raise ValueError(
                    f"{part.rows} rows of {part.name} with {part.heads} heads can't form "
                    f"{self.groups} equal groups"
                )

    @classmethod
    def of(cls, declared: Declared | MatrixLayout) -> MatrixLayout:
        """The parts that an author declared."""
        if isinstance(declared, MatrixLayout):
            return declared
        return interleaved(1, declared)

    @classmethod
    def single(cls, name: str, rows: int) -> MatrixLayout:
        """One matrix."""
        return cls((MatrixRows(name, rows),))

    @property
    def rows(self) -> int:
        """R."""
        return sum(part.rows for part in self.parts)

    def resized(self, by: int, of: int) -> MatrixLayout | None:
        """The same matrices with `by / of` as many rows; None if a group's rows don't divide."""
        if any(part.rows // self.groups * by % of for part in self.parts):
            return None
        parts = []
        for part in self.parts:
            rows = part.rows * by // of
            parts.append(MatrixRows(part.name, rows, part.heads if rows % part.heads == 0 else 1))
        return MatrixLayout(tuple(parts), self.groups)

    def views(self, tensor: Tensor) -> list[Tensor]:
        """For each part a view (copies, groups, rows of a group, ...) of a contiguous tensor."""
        columns = _columns(tensor)
        copies = tensor.numel() // (self.rows * math.prod(columns))
        grouped = tensor.view(copies, self.groups, self.rows // self.groups, *columns)
        sizes = [part.rows // self.groups for part in self.parts]
        return list(torch.split(grouped, sizes, dim=2))

    def split(self, tensor: Tensor, unit: Unit = "matrix") -> list[Tensor]:
        """For each part its matrices (N, rows, n), or (N, rows) of biases; a view if possible.

        N is 1, or E in a stack of E; by head it is multiplied by the number of heads.
        """
        pieces = []
        for part, view in zip(self.parts, self.views(tensor), strict=True):
            heads = part.heads if unit == "head" else 1
            shape = (len(view) * heads, part.rows // heads, *_columns(tensor))
            pieces.append(view.reshape(shape))
        return pieces


def interleaved(groups: int, declared: Declared) -> MatrixLayout:
    """Parts whose rows are stored group by group, such as `[q_h | k_h | v_h]` for each head h."""
    parts = []
    for name, rows in declared.items():
        heads, width = (1, rows) if isinstance(rows, int) else rows
        parts.append(MatrixRows(name, heads * width, heads))
    return MatrixLayout(tuple(parts), groups)


def _columns(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[-1:]) if tensor.ndim > 1 else ()
