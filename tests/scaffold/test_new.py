"""What `strawberry new` makes is whole: it is formatted, builds, passes its own tests, installs."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from strawberry.scaffold import kinds, new
from tests.environments import environment, short_run

REGISTRY = Plugins.load().registry
HERE = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def ran(*words: str, cwd: Path, env: dict[str, str]) -> str:
    """The output of a command that must succeed."""
    program = shutil.which(words[0], path=env["PATH"])
    assert program, words[0]
    done = subprocess.run(
        [program, *words[1:]], check=False, cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(folder: Path, *made: Path) -> dict[str, str]:
    """Install distributions into an environment of their own, in `folder`."""
    env = {**environment(folder), "STRAWBERRY_STRICT_PLUGINS": "1"}
    ran("pip", "install", "--quiet", *map(str, made), cwd=folder, env=env)
    return env


@pytest.mark.parametrize("kind", kinds())
def test_it_is_clean(kind: str, tmp_path: Path) -> None:
    """What is rendered passes the formatter and the linter."""
    made = new(kind, "my_idea", tmp_path, REGISTRY)
    for words in (("format", "--check"), ("check",)):
        options = ["--no-cache", "--line-length=100"]
        ran("ruff", *words, *options, str(made), cwd=tmp_path, env=HERE)
    assert [path.name for path in tmp_path.iterdir()] == ["strawberry-my-idea"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("tracker", "path"), ("ffn", "site"), ("norm", "norm"), ("positional", "positional")],
)
def test_a_class_hides_no_import(kind: str, name: str, tmp_path: Path) -> None:
    """A component named like something that its module imports is clean, and derives from it."""
    made = new(kind, name, tmp_path, REGISTRY)
    ran("ruff", "check", "--no-cache", str(made), cwd=tmp_path, env=HERE)
    text = (made / f"strawberry_{name}" / f"{name}.py").read_text()
    assert f"class {name.capitalize()}{kind.capitalize()}(" in text


BUILD = """
import sys
from strawberry.model.build import build
from strawberry.recipe import load_recipe
for path in sys.argv[1:]:
    recipe = load_recipe(path)
    text = open(path).read() if "executor" in path else recipe.to_yaml().partition("model:")[2]
    assert recipe.name in text, path
    build(recipe, "meta")
"""
QUICK = "shape or future or cache or descends or range or windows or roundtrip or told or runs"


@pytest.mark.parametrize(
    "chosen",
    [("attention", "data", "executor"), pytest.param(kinds(), marks=pytest.mark.slow, id="all")],
)
def test_kinds_install_build_and_pass(chosen: Sequence[str], tmp_path: Path) -> None:
    """One of each, installed together: the recipes use and build them, quick checks pass."""
    made = [new(kind, f"my_{kind}", tmp_path, REGISTRY) for kind in chosen]
    env = installed(tmp_path / "environment", *made)
    recipes = [str(path) for folder in made for path in folder.glob("recipes/*.yaml")]
    assert len(recipes) == len(chosen)
    ran("python", "-c", BUILD, *recipes, cwd=tmp_path, env=env)
    tests = [str(folder / "tests") for folder in made]
    out = ran("pytest", "-q", "-k", QUICK, *tests, cwd=tmp_path, env=env)
    assert "failed" not in out
    assert "skipped" not in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_it_works_by_the_commands_that_are_printed(kind: str, tmp_path: Path) -> None:
    """One after another, in an environment of its own; all checks, compilation too."""
    env = environment(tmp_path / "environment")
    said = ran("strawberry", "new", kind, "my_idea", cwd=tmp_path, env=env)
    commands = [line.strip() for line in said.partition("next:")[2].splitlines() if line.strip()]
    assert len(commands) == 4
    for command in commands:
        ran(*shlex.split(command), cwd=tmp_path, env=env)


def test_it_trains(tmp_path: Path) -> None:
    """A few steps of its recipe, and a tracker that saw them."""
    made = new("tracker", "watch", tmp_path, REGISTRY)
    env = installed(tmp_path / "environment", made)
    sets = short_run(tmp_path, "train.max_iters=3", "train.log_interval=1")
    words = ["train", "recipes/watch.yaml", "--run-dir", "run", *sets]
    ran("strawberry", *words, cwd=made, env=env)
    assert len((made / "run" / "watch.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("attenton", "hyena", "did you mean 'attention'?"),
        ("mixer", "hyena", "no template for kind 'mixer'; available: attention"),
        ("attention", "My-Hyena", "such as 'my_hyena'"),
        ("attention", "lambda", "such as 'my_attention'"),
        ("attention", "mha", "in plugin 'strawberry'"),
        ("attention", "My2", "such as 'my2'"),
        ("attention", "a_", "such as 'a'"),
        ("attention", "none", "that word is reserved in recipes"),
        ("attention", "true", "that word is reserved in recipes"),
        ("attention", "lab", "strawberry-lab is already installed"),
        ("attention", "strawberry", "plugin 'strawberry'"),
    ],
)
def test_mistakes(kind: str, name: str, message: str, tmp_path: Path) -> None:
    """Each is told with the way out, and leaves nothing behind."""
    with pytest.raises(StrawberryError) as caught:
        new(kind, name, tmp_path, REGISTRY)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder that is there stays as it is."""
    made = new("ffn", "idea", tmp_path, REGISTRY)
    (made / "README.md").write_text("mine")
    with pytest.raises(StrawberryError, match="already exists"):
        new("ffn", "idea", tmp_path, REGISTRY)
    assert (made / "README.md").read_text() == "mine"
