"""Register the classes of this package with transformers, as soon as that is imported.

`import strawberry_hf` itself stays fast: it imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence


def _config(module: types.ModuleType) -> None:
    from strawberry_hf.configuration import StrawberryConfig

    module.AutoConfig.register("strawberry", StrawberryConfig, exist_ok=True)


def _model(module: types.ModuleType) -> None:
    from strawberry_hf.configuration import StrawberryConfig
    from strawberry_hf.modeling import StrawberryForCausalLM

    module.AutoModelForCausalLM.register(StrawberryConfig, StrawberryForCausalLM, exist_ok=True)


_REGISTER: dict[str, Callable[[types.ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _config,
    "transformers.models.auto.modeling_auto": _model,
}
"""What to do after each module of transformers was imported."""


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds those modules as Python would, and registers after they ran."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of such a module, with a loader that registers; None of any other."""
        if fullname not in _REGISTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_register(module: types.ModuleType) -> None:
            run(module)
            _REGISTER[fullname](module)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Register now what is imported already, and the rest when it is."""
    for name, action in _REGISTER.items():
        if name in sys.modules:
            action(sys.modules[name])
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
