"""What the tests of recipes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import Recipe, load_recipe
from tests.plugin.fakes import hide_installed

BASE = """\
name: test
model:
  vocab_size: 61
  block_size: 16
  n_embd: 16
  stack:
    - attention: {use: mha, n_head: 4}
      ffn: swiglu
"""


@pytest.fixture(autouse=True)
def builtin_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No installed plugin has a say in what a recipe means."""
    hide_installed(monkeypatch)


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The built-in components alone."""
    with pytest.MonkeyPatch.context() as patch:
        hide_installed(patch)
        return Plugins.load()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that places in messages are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


Load = Callable[..., Recipe]
Wrong = Callable[..., list[str]]


@pytest.fixture
def load(folder: Path, plugins: Plugins) -> Load:
    """Loads a recipe from its text."""

    def load(text: str | bytes, overrides: Sequence[str] = (), name: str = "r.yaml") -> Recipe:
        Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
        return load_recipe(name, overrides, plugins=plugins)

    return load


@pytest.fixture
def wrong(load: Load) -> Wrong:
    """The lines in which a recipe is refused."""

    def wrong(text: str | bytes, overrides: Sequence[str] = (), name: str = "r.yaml") -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, overrides, name)
        return str(caught.value).splitlines()

    return wrong
