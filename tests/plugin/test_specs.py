"""The hooks as a published interface."""

from __future__ import annotations

import subprocess
import sys

from strawberry.plugin import specs
from strawberry.plugin.hooks import HOOKS


def test_hooks_are_frozen() -> None:
    """Hooks and their arguments only ever grow: plugins outside depend on each of these."""
    published = {
        "strawberry_register": {"registry"},
        "strawberry_model_built": {"model", "recipe"},
        "strawberry_step_done": {"run", "step", "metrics"},
        "strawberry_evaluated": {"run", "step", "metrics"},
        "strawberry_checkpoint_saved": {"run", "step", "path"},
        "strawberry_run_finished": {"run", "status"},
    }

    for hook, arguments in published.items():
        assert arguments <= set(HOOKS[hook])


def test_hooks_are_documented() -> None:
    """Every hook says when it is called."""
    for hook in HOOKS:
        assert getattr(specs, hook).__doc__


def test_manifests_are_cheap() -> None:
    """What a manifest imports brings in neither torch nor pydantic nor numpy."""
    code = (
        "import sys; import strawberry.plugin, strawberry.components.manifest\n"
        "from strawberry.plugin import Plugins; Plugins.load(disabled=['all'])\n"
        "print({'torch', 'pydantic', 'numpy', 'rich', 'typer'} & set(sys.modules))"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "set()"
