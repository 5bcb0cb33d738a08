"""Runs that start with given weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import strawberry
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.ranks.world import World
from strawberry.runs import checkpoint, randomness
from strawberry.runs.checkpoint import CheckpointData, CheckpointPolicy
from strawberry.runs.device import machine_for
from strawberry.runs.folder import RunFolder
from strawberry.training.outline import outline
from strawberry.training.recent import RecentSums, all_finite
from strawberry.training.session import open_session

if TYPE_CHECKING:
    from strawberry.data import Progress, Tokenizer
    from strawberry.recipe.spec import Recipe


def begin(
    recipe: Recipe,
    run_dir: str | Path,
    weights: Mapping[str, Tensor],
    *,
    progress: Progress | None = None,
) -> Path:
    """Start a run with given weights: its checkpoint of step 0 contains them.

    Everything that uses a run folder works on it: generation, evaluation, and, for its training,
    `train(recipe, run_dir, resume=True)`.

    Args:
        recipe: the recipe of the run.
        run_dir: the run folder to create.
        weights: the model's `state_dict`.
        progress: progress callback while data is prepared.

    Returns:
        The run folder.

    Raises:
        RecipeError: the recipe can't be built, or its data can't be opened.
        StrawberryError: the weights are not finite, or don't fit the model, or the folder is taken
            or can't be written.
    """
    _check_finite(weights)
    machine = machine_for(recipe)
    outlined = outline(recipe)  # a recipe that can't be built fails before any data is read
    run = RunFolder(run_dir)
    if run.exists:
        raise StrawberryError(f"{run.path}: contains a run; name another folder")
    run.hold()
    try:
        session = open_session(outlined, run, machine, World(), progress=progress)
        try:
            session.model.load_state_dict(weights)
            with session.optimizers.evaluating():
                session.write(RecentSums(machine))
            run.begin(recipe, session.dataset, machine)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise StrawberryError(f"the weights don't fit this model: {reason}") from error
        finally:
            session.batches.close()
            if not run.exists:
                shutil.rmtree(run.checkpoints, ignore_errors=True)
                run.tokenizer_file.unlink(missing_ok=True)
                run.info_file.unlink(missing_ok=True)
    finally:
        run.release()
    return run.path


def write_run(
    recipe: Recipe,
    run_dir: str | Path,
    weights: Mapping[str, Tensor],
    *,
    step: int,
    origin: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
) -> Path:
    """Write a run that another program trained, on data that is not available.

    It can generate, and `train --fork` can start from it, with empty optimizer state.

    Args:
        recipe: the recipe of the run; its data need not exist.
        run_dir: the run folder to create.
        weights: the model's `state_dict`.
        step: number of training steps.
        origin: origin of the weights, for `run.json`.
        tokenizer: the run's tokenizer.

    Returns:
        The run folder.

    Raises:
        StrawberryError: the folder is taken or can't be written, or the weights are not finite.
    """
    _check_finite(weights)
    run = RunFolder(run_dir)
    run.hold()
    try:
        if run.exists:
            raise StrawberryError(f"{run.path}: contains a run; name another folder")
        randomness.seed(recipe.seed)
        random, generators = randomness.of_ranks(World())
        state = {
            "step": step,
            "random": random,
            "metrics": {},
            "recent": RecentSums(machine_for(recipe)).state(),
            "optimizer": None,
            "scale": 1.0,
            "best": None,
        }
        data = CheckpointData(dict(weights), {}, generators, state)
        checkpoint.save(run.checkpoints, data, CheckpointPolicy(1))
        if tokenizer is not None:
            tokenizer.save(run.tokenizer_file)
        info = {
            "strawberry": strawberry.__version__,
            "torch": torch.__version__,
            "imported": dict(origin),
            "data": {"use": recipe.data.use, "fingerprint": "unknown"},
            "seed": recipe.seed,
        }
        write_atomic(run.info_file, json.dumps(info, indent=2) + "\n")
        write_atomic(run.recipe_file, recipe.to_yaml())  # last: it makes the folder a run
    finally:
        run.release()
    return run.path


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if not all_finite([tensor]):
            raise StrawberryError(f"the weights are not finite: {name}")
