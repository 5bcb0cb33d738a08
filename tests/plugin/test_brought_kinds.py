"""A kind that a plugin brings is a kind like any other: one row, and all that follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from strawberry.cli.app import run
from strawberry.errors import PluginError
from strawberry.plugin import ComponentKind, Kinds

PLUGIN = '''\
from typing import Annotated

from annotated_types import Ge

from strawberry.plugin import ComponentKind, hookimpl


class Adapter:
    """Something beside a block's parts."""

    def apply(self, x):
        raise NotImplementedError


class Low(Adapter):
    """A product of two thin matrices.

    Args:
        rank: their inner width.
    """

    def __init__(self, site: object, *, rank: Annotated[int, Ge(1)] = 4) -> None:
        self.rank = rank


class Bare:
    """No adapter at all."""


class Slow:
    """What changes as a run goes on.

    Args:
        steps: until when.
    """

    def __init__(self, site: object, *, steps: int = 10) -> None:
        self.steps = steps


def thin(subject):
    """Is its rank below the width?"""
    spec = next(iter(subject.recipe.model.stack)).components["adapter"]
    return f"rank {spec.construct(subject).rank} of {subject.recipe.model.n_embd}"


@hookimpl
def strawberry_kinds(kinds):
    here = "strawberry_local_adapters"
    kinds.add(ComponentKind(
        "adapter", "addition to a block", f"{here}:Adapter", ("block",), nothing=True,
        plain="none", checks={"thin": f"{here}:thin"},
    ))
    kinds.add(ComponentKind(
        "pace", "change over a run", f"{here}:Slow", ("recipe",), key="paces", many="list"
    ))


@hookimpl
def strawberry_register(registry):
    registry.adapter("low", Low)
    registry.adapter("bare", Bare)
    registry.pace("slow", Slow)
'''
OTHER = '''\
from strawberry.plugin import hookimpl


class Half:
    """Another's component of that kind."""


@hookimpl
def strawberry_register(registry):
    registry.add("adapter", "half", Half)
'''
RECIPE = """\
name: adapted
model:
  vocab_size: 61
  block_size: 16
  n_embd: 16
  stack:
    - repeat: 2
      attention: {use: mha, n_head: 2}
      ffn: swiglu
      adapter: {use: low, rank: 2}
paces: [slow, {use: slow, steps: 3}]
train: {max_iters: 4, batch_size: 2, warmup_iters: 1}
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that load the plugin, in a folder with a recipe."""
    monkeypatch.chdir(tmp_path)
    Path("adapters.py").write_text(PLUGIN)
    Path("recipe.yaml").write_text(RECIPE)
    return ["--no-plugin", "all", "--plugin", "adapters.py"]


def test_it_is_read_and_written(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe names it, `build` shows it in its places, and without the plugin it is unknown."""
    assert run([*files, "build", "recipe.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "adapter  low (rank: 2)" in shown
    assert "paces[0]  slow" in shown
    assert "paces[1]  slow (steps: 3)" in shown
    assert run(["--no-plugin", "all", "build", "recipe.yaml"]) == 2
    told = capsys.readouterr().err
    assert "recipe.yaml:10:7: model.stack[0]: a stack's entry has no 'adapter'" in told
    assert "recipe.yaml:11:1: a recipe has no 'paces'" in told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.stack[0].adapter=lo", "unknown adapter 'lo'; did you mean 'low'?"),
        ("model.stack[0].adapter.rank=0", "expected at least 1, got 0"),
        ("model.stack[0].adapter.rnk=1", "adapter 'low' has no 'rnk'; did you mean 'rank'?"),
        ("paces=slow", "paces: expected a list, got 'slow'"),
        ("paces[1].steps=x", "paces[1].steps: expected a whole number, got the text 'x'"),
        ("model.adapter=low", "the model has no 'adapter'"),
    ],
)
def test_it_is_validated(
    files: list[str], override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its row and its components' signatures, with a place."""
    assert run([*files, "build", "recipe.yaml", "--set", override]) == 2
    assert message in capsys.readouterr().err


def test_round_trip_and_schema(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is written reads back equal; the schema knows the kind and refuses what is wrong."""
    from strawberry.plugin import Plugins
    from strawberry.recipe import load_recipe

    plugins = Plugins.load(files=[Path("adapters.py")], disabled=["all"])
    recipe = load_recipe("recipe.yaml", plugins=plugins)
    Path("again.yaml").write_text(recipe.to_yaml())
    assert load_recipe("again.yaml", plugins=plugins) == recipe
    written = recipe.to_dict()
    assert written["model"]["stack"][0]["stack"][0]["adapter"] == {"use": "adapters/low", "rank": 2}

    assert run([*files, "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(written)
    written["model"]["stack"][0]["stack"][0]["adapter"]["rank"] = 0
    assert not validator.is_valid(written)


def test_it_is_an_axis(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """By its short name, with all of its components, and left out."""
    words = ["ablate", "recipe.yaml", "--dry-run", "--json", "--set", "data=stdlib"]
    assert run([*files, *words, "--vary", "adapter=low,none"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["cell"] for cell in cells] == ["adapter=low", "adapter=none"]
    assert run([*files, *words, "--vary", "adapter=all"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["cell"] for cell in cells] == ["adapter=adapters/bare", "adapter=adapters/low"]
    assert run([*files, *words, "--mode", "leave_one_out"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert "without adapter" in [cell["cell"] for cell in cells]


def test_it_is_checked(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Its contract, and what its row says beside."""
    assert run([*files, "check", "adapter/low"]) == 0
    shown = capsys.readouterr().out
    assert "passed  contract     strawberry_local_adapters:Adapter" in shown
    assert "passed  thin         rank 4 of 32" in shown
    assert run([*files, "check", "adapter/bare", "--only", "contract"]) == 1
    assert "does not derive from strawberry_local_adapters:Adapter" in capsys.readouterr().out


def test_others_may_bring_components_of_it(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the plugins is loaded first; without the kind's owner that is said."""
    Path("other.py").write_text(OTHER)
    options = ["--no-plugin", "all", "--plugin", "other.py", "--plugin", "adapters.py"]
    assert run([*options, "components", "adapter"]) == 0
    assert "half" in capsys.readouterr().out
    assert run([*options[:4], "components", "attention"]) == 0
    assert "unknown kind 'adapter'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "ffn"}, "kind 'ffn': a kind of that name exists"),
        ({"key": "train"}, "kind 'x': 'train' is a reserved word in recipes"),
        ({"key": "trackers"}, "kind 'x': 'trackers' is a reserved word in recipes"),
        ({"name": "A b"}, "kind 'A b': its name must be lower-case letters, digits and _"),
        ({"places": ("blok",)}, "kind 'x': unknown place 'blok'; places: recipe, model, block"),
        ({"contract": "X"}, "kind 'x': expected 'module:attribute', got 'X'"),
        ({"places": ("block",), "many": "list"}, "can have several components"),
    ],
)
def test_rows_that_cannot_be(change: dict[str, Any], message: str) -> None:
    """Each is refused when it is brought."""
    row = {"name": "x", "summary": "an x", "contract": "m:X", **change}
    with pytest.raises(PluginError, match=message):
        Kinds().add(ComponentKind(**row))
