"""What the tests share: plugins loaded once, tasks, and a run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from lm_eval_runs import make_run, write_tasks

from strawberry.plugin import Plugins


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The plugins, loaded once."""
    return Plugins.load()


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three tasks."""
    return write_tasks(tmp_path_factory.mktemp("berries") / "tasks")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Path:
    """A run of a llama."""
    return make_run(tmp_path_factory.mktemp("llama"), plugins)
