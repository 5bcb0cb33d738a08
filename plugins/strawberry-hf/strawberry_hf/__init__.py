"""Hugging Face as a plugin: data sets, and checkpoints of transformers both ways.

The Python side of `strawberry hf`:

    strawberry_hf.export_run("runs/llama", "llama-hf")
    strawberry_hf.import_checkpoint("SmolLM2-135M", "runs/smollm")

After `import strawberry_hf`, the Auto classes of transformers load an exported run of any recipe.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from strawberry_hf.registering import register

if TYPE_CHECKING:
    from strawberry_hf.configuration import StrawberryConfig
    from strawberry_hf.exporting import Exported, export_run
    from strawberry_hf.importing import Imported, import_checkpoint
    from strawberry_hf.modeling import StrawberryForCausalLM

__all__ = [
    "Exported",
    "Imported",
    "StrawberryConfig",
    "StrawberryForCausalLM",
    "export_run",
    "import_checkpoint",
]

_HOMES = {
    "Exported": "strawberry_hf.exporting",
    "export_run": "strawberry_hf.exporting",
    "Imported": "strawberry_hf.importing",
    "import_checkpoint": "strawberry_hf.importing",
    "StrawberryConfig": "strawberry_hf.configuration",
    "StrawberryForCausalLM": "strawberry_hf.modeling",
}
"""Modules of the public names; torch is imported on first access."""

register()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
