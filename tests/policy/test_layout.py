"""House rules that a machine can hold us to."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "strawberry").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
LIGHT = ("strawberry", "strawberry.cli.app", "strawberry.plugin", "strawberry.recipe")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_small(path):
    """No module is longer than 400 lines."""
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_results_are_named_by_what_they_are(path):
    """No variable, argument or attribute is called `found` or `made`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names |= {getattr(node, field, None) for field in ("id", "arg", "attr", "name")}
    assert names.isdisjoint({"found", "made"})


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_test_says_what_it_shows(path):
    """Each test has one sentence that states the behaviour."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]

    assert [node.name for node in functions if not ast.get_docstring(node)] == []


def test_no_public_class_name_stands_for_two_classes():
    """A reader who meets a class's name has one place to look it up."""
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))

    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_torch(module):
    """What `--help`, `plugins` and recipe errors need comes without torch."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_is_light():
    """`strawberry --help` imports neither torch nor pydantic nor rich."""
    code = (
        "import sys; from strawberry.cli.app import run; run(['--help']); "
        "sys.exit(bool({'torch', 'pydantic', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr


def test_every_distribution_is_installed():
    """The environment has all of plugins/, as recipes and tests of the core use some of them."""
    names = {path.name for path in (ROOT / "plugins").glob("strawberry-*")}
    missing = names - {each.name for each in importlib.metadata.distributions()}
    assert not missing, f"`make install-dev`, or pip install --no-deps -e plugins/{min(missing)}"


def test_the_project_speaks_of_itself_only():
    """No file names a place outside the checkout, or a host that packages come from."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    outside = ("/" + "work/", "../" + "shared", "/" + "opt/pypi")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in {".safetensors", ".png"} or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        assert not [place for place in outside if place in text], name
