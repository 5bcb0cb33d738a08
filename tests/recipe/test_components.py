"""Components read from a recipe: nested ones, several of them, messages about their fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import Recipe, load_recipe
from strawberry.recipe.spec import ComponentSpec
from strawberry.recipe.yaml import parse
from tests.recipe.conftest import BASE

PLUGIN = '''
from typing import Annotated, Any, Literal
from annotated_types import Ge, Len
from strawberry.contracts import Tracker
from strawberry.plugin import Kind, hookimpl
from strawberry.recipe.spec import ComponentSpec


class Watch(Tracker):
    """Watches.

    Args:
        inner: the optimizer.
        maybe: another, or none.
        many: several.
        at_least: several, but one at least.
        place: a positional.
        count: how many, or all.
        size: a number or numbers.
        title: a word.
        table: anything by name.
    """

    def __init__(
        self,
        site,
        *,
        inner: Annotated[ComponentSpec, Kind("optimizer")],
        maybe: Annotated[ComponentSpec, Kind("ffn")] | None = None,
        many: list[Annotated[ComponentSpec, Kind("ffn")]] = ("mlp",),
        at_least: Annotated[tuple[Annotated[ComponentSpec, Kind("ffn")], ...], Len(1)] = ("mlp",),
        place: Annotated[ComponentSpec, Kind("positional")] | None = None,
        count: Annotated[int, Ge(1)] | Literal["all"] = "all",
        size: int | list[int] = 1,
        title: str = "x",
        table: dict[str, int] = {},
    ) -> None: ...


@hookimpl
def strawberry_register(registry):
    registry.tracker("watch", Watch)
'''


@pytest.fixture
def local(folder: Path) -> Plugins:
    """The built-in components and a tracker with fields of every sort."""
    (folder / "local.py").write_text(PLUGIN)
    return Plugins.load(disabled=["all"], files=[folder / "local.py"], strict=True)


def load(plugins: Plugins, tracker: str) -> Recipe:
    """The recipe with this tracker."""
    Path("r.yaml").write_text(f"{BASE}trackers:\n- {tracker}\n")
    return load_recipe("r.yaml", plugins=plugins)


def wrong(plugins: Plugins, tracker: str) -> list[str]:
    """The lines in which it is refused, without the file and the line."""
    with pytest.raises(RecipeError) as caught:
        load(plugins, tracker)
    return [line.removeprefix("r.yaml:10:") for line in str(caught.value).splitlines()]


def test_nested_components(local: Plugins) -> None:
    """A field holds a component, none, or several; each is filled and knows its place."""
    text = (
        "{use: watch, inner: {use: muon, rest: {use: adamw, eps: 1e-3}}, maybe: none, "
        "many: [swiglu, {use: mlp, n_ffn: 3}], place: none}"
    )

    recipe = load(local, text)

    fields = recipe.trackers[0].fields
    inner = fields["inner"]
    assert isinstance(inner, ComponentSpec)
    assert inner.fields["rest"].fields["eps"] == 1e-3
    assert inner.fields["rest"].explicit == {"eps"}
    assert inner.fields["rest"].at.path == "trackers[0].inner.rest"
    assert str(inner.fields["rest"].problem("eps", "no")) == (
        "r.yaml:10:59: trackers[0].inner.rest.eps: no"
    )
    assert fields["maybe"] is None
    assert [spec.entry.name for spec in fields["many"]] == ["swiglu", "mlp"]
    assert [spec.entry.name for spec in fields["at_least"]] == ["mlp"]
    assert isinstance(fields["at_least"], tuple)
    assert fields["place"].entry.name == "none"  # that word is a positional's name
    Path("again.yaml").write_text(recipe.to_yaml())
    assert load_recipe("again.yaml", plugins=local) == recipe


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ("", ["3: trackers[0].inner: missing a component of kind optimizer"]),
        ("inner: none",
         ["23: trackers[0].inner: expected a component of kind optimizer, got none"]),
        ("inner: [adamw]",
         ["23: trackers[0].inner: expected a component name of kind optimizer, "
          "or `use:` and its fields"]),
        ("inner: adamw, many: mlp",
         ["36: trackers[0].many: expected a list, got the text 'mlp'"]),
        ("inner: adamw, many: [mlp, 3, {use: mlpp}]",
         ["42: trackers[0].many[1]: expected a component name of kind ffn, "
          "or `use:` and its fields",
          "51: trackers[0].many[2]: unknown ffn 'mlpp'; did you mean 'mlp'?"]),
        ("inner: adamw, at_least: []",
         ["40: trackers[0].at_least: expected a list of at least 1, got []"]),
        ("inner: adamw, count: every",
         ["37: trackers[0].count: expected a whole number, or all, got the text 'every'"]),
        ("inner: adamw, count: 0",
         ["37: trackers[0].count: expected at least 1, or all, got 0"]),
        ("inner: adamw, size: [1, x]",
         ["40: trackers[0].size[1]: expected a whole number, got the text 'x'"]),
        ("inner: adamw, size: x",
         ["36: trackers[0].size: expected a whole number, or a list, got the text 'x'"]),
        ("inner: adamw, table: {a: x}",
         ["41: trackers[0].table.a: expected a whole number, got the text 'x'"]),
        ("inner: adamw, title: 3",
         ["37: trackers[0].title: expected a text, got 3"]),
        ("inner: adamw, titel: x, count: -1",
         ["30: trackers[0]: tracker 'watch' has no 'titel'; did you mean 'title'?",
          "47: trackers[0].count: expected at least 1, or all, got -1"]),
        ("inner: {use: mha}",
         ["29: trackers[0].inner: unknown optimizer 'mha'; 'mha' is of kind attention"]),
        (f"inner: {'x' * 5000}",
         ["23: trackers[0].inner: expected a component name of kind optimizer, "
          "or `use:` and its fields"]),
    ],
)  # fmt: skip
def test_wrong_fields(fields: str, lines: list[str], local: Plugins) -> None:
    """One line for each mistake, however many ways a union has of being wrong."""
    assert wrong(local, f"{{use: watch, {fields}}}") == lines


def test_broken_component(local: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    """A component that can't be imported is named at the line that wants it."""
    monkeypatch.setattr("strawberry.components.ffn.mlp.MLP", None)

    lines = wrong(local, "{use: watch, inner: adamw, maybe: mlp, many: [], at_least: [swiglu]}")

    (line,) = lines
    assert line.startswith("37: trackers[0].maybe: ")
    assert "mlp" in line


def test_ambiguous_name(folder: Path) -> None:
    """A name that two plugins give is settled by the full name, never by chance."""
    (folder / "local.py").write_text(PLUGIN.replace('tracker("watch"', 'ffn("mlp"'))
    plugins = Plugins.load(disabled=["all"], files=[folder / "local.py"])
    (folder / "r.yaml").write_text(BASE.replace("swiglu", "mlp"))
    (folder / "full.yaml").write_text(BASE.replace("swiglu", "strawberry/mlp"))

    with pytest.raises(RecipeError, match=r"ffn 'mlp' is ambiguous: write local/mlp or strawb"):
        load_recipe("r.yaml", plugins=plugins)
    recipe = load_recipe("full.yaml", plugins=plugins)

    assert parse(recipe.to_yaml(), "f").plain()["model"]["stack"][0]["ffn"]["use"] == (
        "strawberry/mlp"
    )


def test_empty_toolkit(folder: Path) -> None:
    """Without the built-in components each need is said once, with why."""
    (folder / "r.yaml").write_text(BASE)

    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml", plugins=Plugins.load(disabled=["all", "strawberry"]))

    assert all("plugin 'strawberry' is disabled" in p.message for p in caught.value.problems)
