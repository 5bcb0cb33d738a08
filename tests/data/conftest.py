"""What the tests of data share: a cache of their own, and corpora in memory."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that nothing else uses."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("STRAWBERRY_CACHE", str(folder))
    return folder
