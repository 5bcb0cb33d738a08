"""No positional information: the causal mask alone gives order."""

from __future__ import annotations

from strawberry.contracts import Positional


class NoPosition(Positional):
    """Adds nothing and rotates nothing (NoPE)."""

    def __init__(self, n_embd: int, block_size: int) -> None:
        super().__init__()
