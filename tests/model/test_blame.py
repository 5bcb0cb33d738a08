"""An exception of a plugin's component is told at its place; one of ours keeps its traceback."""

from pathlib import Path

import pytest

import strawberry
from strawberry.components.ffn.gated import SwiGLU
from strawberry.errors import RecipeError
from strawberry.model.accounting import account
from strawberry.plugin import Plugins

RECIPE = Path(__file__).parents[2] / "recipes" / "llama.yaml"
PLUGIN = """
from strawberry.contracts import FFN
from strawberry.plugin import hookimpl

class Raises(FFN):
    def forward(self, x, use):
        return x @ x

    def __init__(self, site):
        super().__init__()

@hookimpl
def strawberry_register(registry):
    registry.ffn("raises", Raises)
"""


def test_a_plugin_s_component_is_named_with_both_lines(tmp_path: Path) -> None:
    """That of the recipe, and that of its own file; the cause is kept."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    plugins = Plugins.load(files=[tmp_path / "plugin.py"])
    recipe = strawberry.load_recipe(RECIPE, ["model.stack.*.ffn=raises"], plugins=plugins)
    with pytest.raises(RecipeError) as caught:
        account(recipe)
    (problem,) = caught.value.problems
    assert problem.path == "model.stack[0].ffn"
    assert problem.message.startswith("ffn 'raises' raised RuntimeError: ")
    assert problem.message.endswith("(plugin.py:7)")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_bug_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a built-in component raises comes out as it is."""
    monkeypatch.setattr(SwiGLU, "forward", lambda self, x, use: x @ x)
    with pytest.raises(RuntimeError, match="size"):
        account(strawberry.load_recipe(RECIPE))
