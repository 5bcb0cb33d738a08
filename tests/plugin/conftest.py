"""What the tests of plugins share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.fakes import FakeSite


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSite]:
    """A folder on sys.path for fake distributions, in an environment without our variables."""
    monkeypatch.delenv("STRAWBERRY_STRICT_PLUGINS", raising=False)
    monkeypatch.delenv("STRAWBERRY_DISABLE_PLUGINS", raising=False)
    fake = FakeSite(tmp_path / "site", monkeypatch)
    yield fake
    fake.forget()
