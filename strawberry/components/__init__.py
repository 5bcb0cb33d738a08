"""The built-in components: a folder a kind, a file a component.

Nothing imports them by name: they are reached through the registry, as everyone's are. What a
plugin's component may build on is in `__all__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.components.attention.recurrence import recurrence
    from strawberry.components.norm.rmsnorm import unit_rms
    from strawberry.components.weights.owned import OwnedBank, OwnedProjection
    from strawberry.components.weights.retention import SWAPS, Rule, Update

__all__ = ["SWAPS", "OwnedBank", "OwnedProjection", "Rule", "Update", "recurrence", "unit_rms"]

_MODULES = ("attention.recurrence", "norm.rmsnorm", "weights.owned", "weights.retention")

__getattr__, __dir__ = lazily(__name__, __all__, _MODULES)
