"""Trackers: that they go through whole, failed and resumed runs, and change nothing."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.contracts import Tracker
from strawberry.errors import PluginError
from strawberry.generation import load_run
from strawberry.recipe.load import patch
from strawberry.recipe.spec import Recipe
from strawberry.training import train

STOPS = 5
"""The step after which the run fails that is then resumed."""


class _Stopper(Tracker):
    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        if step == STOPS:
            raise RuntimeError("stopped on purpose")


def told(subject: Subject) -> str:
    """Does it go through a run of training, evaluations and checkpoints?"""
    with _recipe(subject) as (recipe, folder):
        done = train(recipe, folder / "run")
        return f"{done.steps} steps"


def resumes(subject: Subject) -> str:
    """Is it told of a run that fails, and does it go on with the same run?"""
    with _recipe(subject) as (recipe, folder):
        _goes_through(recipe, folder / "whole")
        try:
            train(recipe, folder / "run", trackers=[_Stopper()])
        except PluginError as error:
            if "on purpose" not in str(error):
                raise
        done = train(recipe, folder / "run", resume=True)
        return f"failed after step {STOPS}, then went on to step {done.steps}"


def changes_nothing(subject: Subject) -> str:
    """Does the model come out the same, bit for bit, as without it?"""
    with _recipe(subject) as (recipe, folder):
        _goes_through(recipe, folder / "watched")
        watched = _weights(recipe, folder / "watched")
        unwatched = patch(recipe, {"trackers": []})
        train(unwatched, folder / "alone")
        alone = _weights(unwatched, folder / "alone")
    differ = [name for name, tensor in alone.items() if not torch.equal(tensor, watched[name])]
    if differ:
        raise Finding(
            f"with it {len(differ)} of {len(alone)} tensors come out otherwise, such as {differ[0]}"
        )
    return f"{len(alone)} tensors"


def _goes_through(recipe: Recipe, folder: Path) -> None:
    """A whole run; where that is what fails, another check says so."""
    try:
        train(recipe, folder)
    except PluginError as error:
        raise NotApplicable(f"it does not go through a run: {error}") from error


def _weights(recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    return load_run(folder, plugins=recipe.plugins).model.state_dict()


@contextlib.contextmanager
def _recipe(subject: Subject) -> Iterator[tuple[Recipe, Path]]:
    """A run of seconds, with dropout so that a disturbed generator shows; and a folder for it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
        data = {"use": "text", "path": str(folder / "text.txt")}
        yield patch(subject.recipe, {"data": data}), folder
