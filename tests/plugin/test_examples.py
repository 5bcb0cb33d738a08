"""The minimal example in the docstring of each kind's contract works as it stands."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from strawberry.check import Subject, of_component, run_one
from strawberry.contracts import StopRun, Tracker
from strawberry.plugin import Plugins
from strawberry.plugin.kinds import CORE
from strawberry.plugin.registry import resolve

HEAD = """
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.ablate import TrialProcess, stop, write_request
from strawberry.contracts import *
from strawberry.plugin import hookimpl

@hookimpl
def strawberry_register(registry):
"""
CHECKS = {
    "optimizer": ("moves",), "schedule": ("range",), "averaging": ("mean",),
    "curriculum": ("function",), "measure": ("adds",), "data": ("windows", "repeats", "draws"),
    "tokenizer": ("roundtrip", "ids", "special"), "task": ("shape", "exact"),
}  # fmt: skip
"""The checks of a kind that is no part of a model; a part is decoded and has gradients."""
RUNS = ("executor", "tracker")
"""Kinds whose checks train."""


def example(contract: type) -> tuple[str, str]:
    """The classes in a contract's docstring, and the name of the first one."""
    text = inspect.getdoc(contract) or ""
    start = text.find("    class ")
    assert start >= 0, f"{contract.__name__} has no example"
    code = textwrap.dedent(re.split(r"\n(?=\S)", text[start:])[0])
    return code, re.findall(r"class (\w+)", code)[0]


@functools.cache
def subjects(folder: Path) -> dict[str, Subject]:
    """A subject for each kind's example, all of one plugin."""
    examples = {kind.name: example(resolve(kind.contract, kind.name)) for kind in CORE}
    calls = [f"    registry.{kind}('example', {name})" for kind, (_, name) in examples.items()]
    file = folder / "examples.py"
    file.write_text("\n".join([HEAD, *calls, *(code for code, _ in examples.values())]))
    plugins = Plugins.load(files=[file], disabled=["all"])
    return {kind: of_component(kind, "example", plugins=plugins) for kind in examples}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugin is."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("kind", [kind.name for kind in CORE if kind.name not in RUNS])
def test_the_example_of_a_contract_passes_checks(kind: str, folder: Path) -> None:
    """Registered by itself, it is built where its kind stands, and does what is asked of it."""
    for check in CHECKS.get(kind, ("cache", "gradients")):
        result = run_one(subjects(folder)[kind], check)
        assert result.verdict == "passed", result.detail


def test_the_example_of_a_tracker_ends_its_run(folder: Path) -> None:
    """Once the loss is low enough."""
    tracker = subjects(folder)["tracker"].recipe.trackers[0].construct(None, contract=Tracker)
    tracker.evaluated(folder, 1, {"val_loss": 2.5})
    with pytest.raises(StopRun):
        tracker.evaluated(folder, 2, {"val_loss": 1.5})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "check"), [("executor", "runs"), ("tracker", "told")])
def test_the_examples_that_need_runs(kind: str, check: str, folder: Path) -> None:
    """An executor runs trials, and a tracker sees a run."""
    result = run_one(subjects(folder)[kind], check)
    assert result.verdict == "passed", result.detail
