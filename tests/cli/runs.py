"""Fixtures for the verbs that need a run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from strawberry.cli.app import run
from tests.training.conftest import _quiet_machine, corpus, recipe_file

__all__ = ["_quiet_machine", "corpus", "recipe_file", "trained"]


@pytest.fixture
def trained(recipe_file: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of a short run."""
    folder = tmp_path / "run"
    arguments = ["train", str(recipe_file()), "--run-dir", str(folder), "--json"]
    assert run(arguments) == 0
    return folder
