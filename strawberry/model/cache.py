"""The decoding cache of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from strawberry.contracts import State


@dataclass(slots=True)
class Cache:
    """The decoding cache: a state for each block use, and a token count.

    Attributes:
        states: states of the block uses.
        length: maximum number of tokens.
        offset: number of tokens so far.
        once: values computed once in a pass, independent of tokens, kept for the next pass.
    """

    states: list[State]
    length: int
    offset: int = 0
    once: dict[Any, Any] = field(default_factory=dict)

    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(t.nbytes for state in self.states for t in state.values())

    def repeat(self, times: int) -> None:
        """Repeat each sequence this many times, side by side; each copy has the same state."""
        self._each(lambda tensor: tensor.repeat_interleave(times, 0))

    def reorder(self, rows: Tensor) -> None:
        """Keep the sequences of these numbers, (B,) int64, in this order; one may come twice."""
        self._each(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        self.states = [
            {name: change(tensor) for name, tensor in state.items()} for state in self.states
        ]
