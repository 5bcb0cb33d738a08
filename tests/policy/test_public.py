"""What is public is said by a list, and plugins import nothing else."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strawberry.lazily import homes
from strawberry.plugin.public import PUBLIC

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import guide_tables  # noqa: E402 (it is a script, not a package's module)

FILES = [*ROOT.glob("plugins/**/*.py"), *ROOT.glob("tests/ideas/**/*.py")]
TEMPLATES = [*ROOT.glob("strawberry/scaffold/templates/**/*.py.j2")]
GUIDE = (ROOT / "plugins" / "README.md").read_text()


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Each import of Strawberry's, at any depth: the module, and the name taken from it or ""."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module or "", alias.name) for alias in node.names)


def private(source: str) -> list[str]:
    """What a source imports of Strawberry that is not public."""
    found = []
    for module, name in imported(source):
        if module.partition(".")[0] != "strawberry":
            continue
        given = names_of(module) if module in PUBLIC else ()
        if module not in PUBLIC or (name and name not in given):
            found.append(f"{module}.{name}".rstrip("."))
    return found


@functools.cache
def names_of(module: str) -> tuple[str, ...]:
    """The public names of a public module: read without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(ast.literal_eval(node.value))
    return tuple(homes(spec.origin)) if "= lazily(" in source else ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_what_is_public(path: Path) -> None:
    """The distributions in plugins/, their tests, and ideas need nothing internal."""
    assert private(path.read_text()) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_new_plugins_import_what_is_public(path: Path) -> None:
    """What `strawberry new` writes; statements are cut out, as a template is no Python yet."""
    statements = re.findall(
        r"^ *((?:from strawberry\S* import (?:\([^)]*\)|.+))|import strawberry\S*)$",
        path.read_text(),
        flags=re.MULTILINE,
    )
    assert private("\n".join(statements)) == []


def test_the_guide_imports_what_is_public() -> None:
    """Every Python block of the authors' guide keeps to what the guide says."""
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    assert [name for block in blocks for name in private(block)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import strawberry.model.build",
        "from strawberry.cli.app import run",
        "from strawberry.recipe import validate",
        "def f():\n    from strawberry.runs import checkpoint",
    ],
)
def test_what_is_internal_is_found(source: str) -> None:
    """A control: modules, names outside `__all__`, and imports inside functions are seen."""
    assert private(source)


@pytest.mark.parametrize("module", [name for name in PUBLIC if name != "strawberry.testing"])
def test_public_names_are_there(module: str) -> None:
    """Each can be imported; none that comes lazily is hidden by a module of the same name."""
    package = importlib.import_module(module)
    names = names_of(module)
    assert names
    assert [name for name in names if not hasattr(package, name)] == []
    if "__getattr__" in vars(package):
        inside = {info.name for info in pkgutil.iter_modules(getattr(package, "__path__", ()))}
        assert inside & set(names) == set()


@pytest.mark.parametrize("guide", guide_tables.GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_follow_from_the_code(guide: Path) -> None:
    """If not: `python tools/guide_tables.py`, and commit what it writes."""
    assert guide_tables.written(guide) == guide.read_text()
