"""Classes that break their contract are refused with the author's line."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from strawberry.errors import PluginError, RecipeError
from strawberry.plugin import Plugins
from strawberry.plugin.conformance import check_class
from strawberry.plugin.kinds import CORE, ComponentKind
from strawberry.plugin.registry import resolve
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


DECLARED = [
    ("Positional", "places = {'rotary'}", "rotate", "its places have 'rotary'"),
    ("Positional", "places = {'context'}", "relate", "its places have 'context'"),
    ("Objective", "left_to_right = False", "predictions", "it is not `left_to_right`"),
    ("Objective", "drafts = 2", "draft", "it drafts 2"),
    ("OptimizerSource", "passes = 2", "after_pass", "it takes 2 passes"),
    ("Measure", "x = 1", "measure", "it has no `items` either"),
]
"""Declarations that ask for a method: contract, class body, method, reason."""


def wrong(contract: type) -> Iterator[tuple[str, str]]:
    """The body of a class that breaks its contract in one way, and what is said of it."""
    name = contract.__name__
    whole = [f"def {a}(self, *a, **b): ..." for a in getattr(contract, "__abstractmethods__", ())]
    for lacking in getattr(contract, "__abstractmethods__", ()):
        rest = [line for line in whole if f"def {lacking}(" not in line]
        yield "; pass\n    ".join(["x = 1", *rest]), rf"Wrong \(HERE:LINE\) lacks `{lacking}\b"
    for method, function in inspect.getmembers(contract, inspect.isfunction):
        own = function.__module__.startswith("strawberry.") and not method.startswith("_")
        if not own or len(inspect.signature(function).parameters) < 2:
            continue
        rest = [line for line in whole if f"def {method}(" not in line]
        said = rf"`{method}\(\)` \(HERE:LINE\) can't be called as `{method}\(\w"
        yield "\n    ".join([f"def {method}(self): ...", *rest]), said
    said = r"`__init__\(self, width, ...\)` \(HERE:LINE\): a component is constructed with"
    yield "\n    ".join(["def __init__(self, width): ...", *whole]), said
    for of, body, method, why in DECLARED:
        if of == name:
            yield "\n    ".join([body, *whole]), rf"lacks `{method}\(.*`: {why}"


@pytest.mark.parametrize("kind", CORE, ids=lambda kind: kind.name)
def test_every_kind_refuses_what_breaks_its_contract(
    kind: ComponentKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that is missing or can't be called, a constructor: each with the class's line."""
    contract = resolve(kind.contract, kind.name)
    monkeypatch.syspath_prepend(tmp_path)
    home, name = kind.contract.split(":")
    for number, (body, said) in enumerate(wrong(contract)):
        file = tmp_path / f"wrong_{kind.name}_{number}.py"
        file.write_text(f"from {home} import {name}\n\nclass Wrong({name}):\n    {body}\n")
        cls = importlib.import_module(file.stem).Wrong
        said = said.replace("HERE", str(file))  # noqa: PLW2901
        with pytest.raises(
            PluginError, match=said.replace("LINE", "3" if "Wrong" in said else "4")
        ):
            check_class(cls, contract)
    with pytest.raises(PluginError, match=f"dict .* is not a {contract.__name__}"):
        check_class(dict, contract)
