"""Each file here without a `RECIPE` is an idea of an architecture: a plugin of its own."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch

from strawberry.check import Subject, checks_for, of_component, run_one
from strawberry.plugin import Plugins

FOLDER = Path(__file__).parent
FILES = [p for p in FOLDER.glob("*.py") if not p.stem.startswith(("_", "test_"))]
IDEAS = sorted(p.stem for p in FILES if "\nRECIPE = " not in p.read_text())
"""Those of training have a `RECIPE`, and are tried by `test_training_ideas.py`."""
QUICK = ("cache", "gradients")
"""Checks of every run of the suite; the others are slow: `pytest -m slow tests/ideas`."""

EXEMPT = {("exclusive", "past")}
"""What can't hold: a first token sees itself alone, of which exclusive attention leaves nothing."""


@functools.cache
def subjects(idea: str) -> tuple[Subject, ...]:
    """A small model around each of its components."""
    plugins = Plugins.load(files=[FOLDER / f"{idea}.py"])
    own = [entry for entry in plugins.registry.entries() if entry.plugin == idea]
    assert own, f"{idea}.py registers nothing"
    return tuple(of_component(entry.kind, entry.full_name, plugins=plugins) for entry in own)


@pytest.mark.parametrize("idea", IDEAS)
def test_it_is_small_and_uses_the_public_api(idea: str) -> None:
    """At most 60 lines, and of Strawberry it imports what an author may."""
    text = (FOLDER / f"{idea}.py").read_text()
    assert len(text.splitlines()) <= 60
    used = set(re.findall(r"^from (strawberry[\w.]*) import", text, re.MULTILINE))
    public = ("contracts", "components", "plugin", "errors")
    assert used <= {f"strawberry.{name}" for name in public}


@pytest.mark.parametrize("check", QUICK)
@pytest.mark.parametrize("idea", IDEAS)
def test_its_checks_pass(idea: str, check: str) -> None:
    """What the property suite says of it, the quick part."""
    passes(idea, check)


@pytest.mark.slow
@pytest.mark.parametrize("idea", IDEAS)
def test_all_checks_pass(idea: str) -> None:
    """The rest of the property suite, but for timing."""
    for subject in subjects(idea):
        for check in checks_for(subject.kind, subject.kinds):
            if check not in (*QUICK, "speed", "memory") and (idea, check) not in EXEMPT:
                passes(idea, check)


def passes(idea: str, check: str) -> None:
    for subject in subjects(idea):
        if check in checks_for(subject.kind, subject.kinds):
            outcome = run_one(subject, check)
            assert outcome.verdict != "failed", f"{subject.name}: {outcome.detail}"


@pytest.mark.parametrize("idea", IDEAS)
def test_it_trains(idea: str) -> None:
    """Ten steps on one batch lower its loss."""
    for subject in subjects(idea):
        if "gradients" not in checks_for(subject.kind, subject.kinds):
            continue
        torch.manual_seed(0)
        model, idx = subject.model(training=True), subject.tokens(batch=4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(10):
            loss = model.loss(idx[:, :-1], idx[:, 1:]).total
            model.zero_grad()
            loss.backward()
            optimizer.step()
            model.after_step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
