"""What the fault tests share: tiny runs, figures, and calls that fail where they are told to."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strawberry.runs import checkpoint
from tests.training.conftest import _quiet_machine, corpus, make_recipe, recipe_file

__all__ = ["_quiet_machine", "corpus", "make_recipe", "recipe_file"]

Figure = Callable[..., None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Notes a fault's line for the table, and fails if one was not survived."""

    def note(tried: int, survived: int, unit: str = "", **more: Any) -> None:
        text = f"{survived}/{tried} {unit}".strip()
        text += "".join(f", {name} {value}" for name, value in more.items())
        request.node.user_properties.append(("figure", text))
        print(f"{request.node.name}: {text}")  # noqa: T201 (seen with -s)
        assert survived == tried > 0, text

    return note


class Killed(BaseException):
    """Stands for a SIGKILL: nothing that the program has catches it."""


class Calls:
    """The calls that reach the disk, counted; the one with number `at` does `fault` instead."""

    def __init__(
        self, patch: pytest.MonkeyPatch, at: int, fault: Callable[[], Any], times: int = 1
    ) -> None:
        self.number = 0
        self.faults = range(at, at + times)
        self.fault = fault
        for module, name in (
            (os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (os, "rmdir"),
            (os, "unlink"), (io, "open"), (checkpoint, "save_file"),
        ):  # fmt: skip
            patch.setattr(module, name, self._counted(getattr(module, name)))

    @property
    def reached(self) -> bool:
        """Whether the fault has happened."""
        return self.number > self.faults.start

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.number += 1
            if self.number - 1 in self.faults:
                self.fault()
            return call(*args, **kwargs)

        return counted


def raising(error: BaseException) -> Callable[[], None]:
    """A fault that raises."""

    def fault() -> None:
        raise error

    return fault


def reseal(path: Path) -> None:
    """Give a checkpoint that was tampered with hashes that agree again."""
    import json

    names = json.loads((path / "manifest.json").read_text())
    made = {name: checkpoint.digest(path / name) for name in names if (path / name).exists()}
    (path / "manifest.json").write_text(json.dumps(made))
