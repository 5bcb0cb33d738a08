"""No positional information: only the causal mask gives order."""

from __future__ import annotations

from strawberry.contracts import Positional, PositionalSite


class NoPosition(Positional):
    """Adds nothing and rotates nothing (NoPE)."""

    def __init__(self, site: PositionalSite) -> None:
        super().__init__()
