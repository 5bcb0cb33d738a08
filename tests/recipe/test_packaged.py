"""Recipes by name: those of Strawberry and of plugins, in a checkout and in a wheel."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from strawberry.ablate.planfile import make_plan
from strawberry.errors import RecipeError, StrawberryError
from strawberry.recipe import load_recipe
from strawberry.recipe.packaged import by_name, locate, packaged
from tests.support import PLUGINS

ROOT = Path(__file__).parents[2]


def test_every_recipe_has_a_name_and_says_what_it_is() -> None:
    """The list has each recipe of the checkout once, with a sentence."""
    known = packaged(PLUGINS)
    ours = {each.name for each in known if each.plugin == "strawberry"}
    files = (ROOT / "recipes").rglob("*.yaml")

    assert ours == {file.relative_to(ROOT / "recipes").with_suffix("").as_posix() for file in files}
    assert {"air", "gpu/llama_7b", "soap"} <= {each.name for each in known}
    assert [each.name for each in known if not each.summary] == []


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the name of a packaged recipe is the one that is meant; a bare folder is not."""
    monkeypatch.chdir(tmp_path)
    assert locate("llama", PLUGINS) == by_name("llama", PLUGINS) == ROOT / "recipes/llama.yaml"
    Path("llama").mkdir()
    assert locate("llama", PLUGINS) == ROOT / "recipes/llama.yaml"
    Path("llama/recipe.yaml").write_text("")  # a run
    assert locate("llama", PLUGINS) == Path("llama/recipe.yaml")
    Path("llama.yaml").write_text("")
    assert locate("llama.yaml", PLUGINS) == Path("llama.yaml")


def test_names_work_wherever_paths_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python, under `extends`, and in a plan."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: moe\nname: mine\n")
    Path("plan.yaml").write_text("ablate: moe\nvary: {ffn: [swiglu]}\n")

    assert load_recipe("moe", plugins=PLUGINS).name == "moe"
    assert load_recipe("mine.yaml", plugins=PLUGINS).model == load_recipe("moe").model
    assert make_plan(Path("plan.yaml"), {}, plugins=PLUGINS).recipe == ROOT / "recipes/moe.yaml"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lama", "lama: there is no such file, and no packaged recipe of that name; did you mean"),
        (".", r"\.: is a folder without a run, and no packaged recipe of that name; `strawberry"),
    ],
)
def test_what_is_neither(word: str, said: str) -> None:
    """The error says both, and suggests a name."""
    with pytest.raises(StrawberryError, match=said):
        locate(word, PLUGINS)


def test_extends_names_nothing(tmp_path: Path) -> None:
    """An unknown name under `extends` is an error at its place."""
    (tmp_path / "mine.yaml").write_text("extends: lama\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml:1:10: extends: no such file.*nor a packag"):
        load_recipe(tmp_path / "mine.yaml", plugins=PLUGINS)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a plugin's package be a folder with these recipes in it, as a wheel has them."""
    real = importlib.util.find_spec

    def install(package: str, *names: str) -> None:
        for name in names:
            file = tmp_path / package / "recipes" / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("# A recipe.\n")
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / package)]
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *a: spec if name == package else real(name, *a),
        )

    return install


def test_a_wheel_has_its_recipes_inside(installed: Callable[..., None], tmp_path: Path) -> None:
    """They are found in the package's folder; a folder beside it without a project is no one's."""
    installed("strawberry_retention", "historic")
    assert by_name("historic", PLUGINS) == tmp_path / "strawberry_retention/recipes/historic.yaml"
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/stray.yaml").write_text("")
    installed("strawberry_retention")
    assert by_name("stray", PLUGINS) is None


def test_two_of_a_name(installed: Callable[..., None]) -> None:
    """A name that two plugins have is refused, with both owners."""
    installed("strawberry_retention", "llama")
    with pytest.raises(StrawberryError, match="strawberry and retention both have a recipe"):
        locate("llama", PLUGINS)


@pytest.mark.parametrize("folder", [ROOT, *sorted(ROOT.glob("plugins/strawberry-*"))], ids=str)
def test_every_distribution_packs_its_recipes(folder: Path) -> None:
    """The build backend puts `recipes/` into the package of the wheel."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    (package,) = wheel["packages"]

    assert (folder / package / "__init__.py").exists()
    if (folder / "recipes").is_dir():
        assert wheel["force-include"] == {"recipes": f"{package}/recipes"}
