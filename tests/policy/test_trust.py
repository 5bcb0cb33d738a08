"""Plugins are code; recipes, checkpoints and data are not: nothing reads them as code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("strawberry/**/*.py"), *ROOT.glob("plugins/*/strawberry_*/**/*.py")]
UNSAFE = {
    "eval", "exec", "pickle.load", "pickle.loads", "torch.load", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "marshal.load", "marshal.loads", "shelve.open", "joblib.load", "dill.load",
}  # fmt: skip


def calls(source: str) -> list[str]:
    """What a source calls of `UNSAFE`, and unpicklers that let everything through."""
    tree = ast.parse(source)
    called = [
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "weights_only=True" not in ast.unparse(node)
    ]
    classes = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any("Unpickler" in ast.unparse(base) for base in node.bases)
        and not any(getattr(item, "name", "") == "find_class" for item in node.body)
    ]
    return [name for name in called if name in UNSAFE or name.endswith(".Unpickler")] + classes


@pytest.mark.parametrize("package", sorted({path.relative_to(ROOT).parts[:2] for path in SOURCES}))
def test_nothing_runs_what_it_reads(package: tuple[str, str]) -> None:
    """No package evaluates or unpickles, but for unpicklers that say which classes they allow."""
    folder = ROOT.joinpath(*package)
    files = [path for path in SOURCES if path == folder or folder in path.parents]
    assert files
    assert {str(path): calls(path.read_text()) for path in files if calls(path.read_text())} == {}


@pytest.mark.parametrize(
    "source", ["torch.load(f)", "pickle.Unpickler(f).load()", "class A(pickle.Unpickler): pass"]
)
def test_what_is_unsafe_is_found(source: str) -> None:
    """A control: each way of unpickling is seen."""
    assert calls(source)
