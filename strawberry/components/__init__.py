"""The built-in components: one folder for each kind, one file for each component.

No module imports them by name; the registry finds them, as it does plugins' components. `__all__`
has the helpers for components of plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.components.attention.recurrence import recurrence as recurrence
    from strawberry.components.attention.softmax import extend_kv as extend_kv, new_kv as new_kv
    from strawberry.components.dispatch import Dispatch as Dispatch
    from strawberry.components.norm.rmsnorm import unit_rms as unit_rms
    from strawberry.components.routing import (
        ExpertAssignment as ExpertAssignment,
        ExpertRouter as ExpertRouter,
        RouterLosses as RouterLosses,
    )
    from strawberry.components.weights.owned import OwnedWeights as OwnedWeights
    from strawberry.components.weights.retention import (
        SWAPS as SWAPS,
        Rule as Rule,
        Update as Update,
    )

__all__, __getattr__, __dir__ = lazily(__name__, __file__)
