"""The built-in components: one folder for each kind, one file for each component.

No module imports them by name; the registry finds them, as it does plugins' components. `__all__`
has the helpers for components of plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.components.attention.recurrence import recurrence
    from strawberry.components.attention.softmax import extend_kv, new_kv
    from strawberry.components.dispatch import Dispatch
    from strawberry.components.norm.rmsnorm import unit_rms
    from strawberry.components.routing import ExpertAssignment, ExpertRouter, RouterLosses
    from strawberry.components.weights.owned import OwnedWeights
    from strawberry.components.weights.retention import SWAPS, Rule, Update

__all__ = [
    "SWAPS",
    "Dispatch",
    "ExpertAssignment",
    "ExpertRouter",
    "OwnedWeights",
    "RouterLosses",
    "Rule",
    "Update",
    "extend_kv",
    "new_kv",
    "recurrence",
    "unit_rms",
]

_MODULES = (
    "attention.recurrence",
    "attention.softmax",
    "dispatch",
    "norm.rmsnorm",
    "routing",
    "weights.owned",
    "weights.retention",
)

__getattr__, __dir__ = lazily(__name__, __all__, _MODULES)
