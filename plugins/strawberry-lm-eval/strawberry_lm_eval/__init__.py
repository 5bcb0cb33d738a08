"""lm-evaluation-harness as a plugin: scores of runs on its tasks.

The Python side of `strawberry eval RUN --tasks`:

    lm = strawberry_lm_eval.StrawberryLM("runs/air")
    lm_eval.simple_evaluate(model=lm, tasks=["arc_easy"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strawberry_lm_eval.model import StrawberryLM

__all__ = ["StrawberryLM"]


def __getattr__(name: str) -> Any:
    if name != "StrawberryLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from strawberry_lm_eval.model import StrawberryLM

    return StrawberryLM
