"""Checks of trackers: they survive whole, failed and resumed runs, and change nothing."""

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
"""The step after which the run fails before it is resumed."""


class _Stopper(Tracker):
    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        if step == STOPS:
            raise RuntimeError("stopped on purpose")


def told(subject: Subject) -> str:
    """Does it survive a run of training, evaluations and checkpoints?"""
    with _recipe(subject) as (recipe, folder):
        done = train(recipe, folder / "run")
        return f"{done.steps} steps"


def resumes(subject: Subject) -> str:
    """Is it informed of a failed run, and does it continue with the resumed one?"""
    with _recipe(subject) as (recipe, folder):
        _goes_through(recipe, folder / "whole")
        try:
            train(recipe, folder / "run", trackers=[_Stopper()])
        except PluginError as error:
            if "on purpose" not in str(error):
                raise
        done = train(recipe, folder / "run", resume=True)
        return f"failed after step {STOPS}; the run continued to step {done.steps}"


def changes_nothing(subject: Subject) -> str:
    """Is the trained model bit-identical with and without it?"""
    with _recipe(subject) as (recipe, folder):
        _goes_through(recipe, folder / "watched")
        watched = _weights(recipe, folder / "watched")
        unwatched = patch(recipe, {"trackers": []})
        train(unwatched, folder / "alone")
        alone = _weights(unwatched, folder / "alone")
    differ = [name for name, tensor in alone.items() if not torch.equal(tensor, watched[name])]
    if differ:
        raise Finding(
            f"it changes {len(differ)} of {len(alone)} tensors of the trained model, such "
            f"as {differ[0]}"
        )
    return f"{len(alone)} tensors"


def _goes_through(recipe: Recipe, folder: Path) -> None:
    """A whole run; if that fails, another check reports it."""
    try:
        train(recipe, folder)
    except PluginError as error:
        raise NotApplicable(f"it fails during a run: {error}") from error


def _weights(recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    return load_run(folder, plugins=recipe.plugins).model.state_dict()


@contextlib.contextmanager
def _recipe(subject: Subject) -> Iterator[tuple[Recipe, Path]]:
    """A run of seconds, with dropout so that a disturbed generator shows, and its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
        data = {"use": "text", "path": str(folder / "text.txt")}
        yield patch(subject.recipe, {"data": data}), folder
