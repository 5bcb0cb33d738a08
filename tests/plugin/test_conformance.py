"""Classes that break their contract are refused with the author's line."""

from __future__ import annotations

from pathlib import Path

import pytest

from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe.load import load_recipe

HEAD = """from strawberry.contracts import FFN, Attention
from strawberry.plugin import hookimpl
"""
TAIL = """
@hookimpl
def strawberry_register(registry):
    registry.ffn("mine", Mine)
"""
RECIPE = """
model:
  vocab_size: 16
  block_size: 8
  n_embd: 8
  stack: [{attention: mha, ffn: mine}]
"""
WRONG = {
    "class Mine(Attention):\n    pass\n": r"Mine \(.*mine.py:3\) is not a FFN",
    "class Mine(FFN):\n    pass\n": r"Mine \(.*mine.py:3\) lacks `forward\(x, use\)`",
    "class Mine(FFN):\n    def forward(self, x):\n        return x\n": (
        r"`forward\(x\)` \(.*mine.py:4\) can't be called as `forward\(x, use\)`"
    ),
    "class Mine(FFN):\n"
    "    def __init__(self, n_embd, *, width: int = 4):\n        super().__init__()\n"
    "    def forward(self, x, use):\n        return x\n": (
        r"`__init__\(self, n_embd, ...\)` \(.*mine.py:4\): a component is constructed with "
        r"`\(self, site, \*, fields\)`"
    ),
    "class Mine(FFN):\n"
    "    def forward(self, x, use):\n        return x\n"
    "    def new_state(self, batch):\n        return {}\n": (
        r"`new_state\(batch\)` \(.*mine.py:6\) can't be called as "
        r"`new_state\(batch, length, device, dtype\)`"
    ),
}


def load(tmp_path: Path, body: str) -> None:
    (tmp_path / "mine.py").write_text(HEAD + body + TAIL)
    (tmp_path / "r.yaml").write_text(RECIPE)
    load_recipe(tmp_path / "r.yaml", plugins=Plugins.load(files=[tmp_path / "mine.py"]))


@pytest.mark.parametrize("body", list(WRONG))
def test_broken_contracts_are_refused(tmp_path: Path, body: str) -> None:
    """Each is told at the recipe's line, with what would be right and the class's own line."""
    with pytest.raises(RecipeError, match=rf"r.yaml:6:\d+: model.stack\[0\].ffn: {WRONG[body]}"):
        load(tmp_path, body)


def test_a_component_without_fields_needs_no_constructor(tmp_path: Path) -> None:
    """The base takes the site, so the smallest component is a `forward`."""
    load(tmp_path, "class Mine(FFN):\n    def forward(self, x, use):\n        return x\n")
