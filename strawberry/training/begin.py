"""A run that begins with weights from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.ranks.world import World
from strawberry.runs.device import machine_for
from strawberry.runs.folder import RunFolder
from strawberry.training.recent import RecentSums, all_finite
from strawberry.training.session import open_session

if TYPE_CHECKING:
    from strawberry.data import Progress
    from strawberry.recipe.spec import Recipe


def begin(
    recipe: Recipe,
    run_dir: str | Path,
    weights: Mapping[str, Tensor],
    *,
    progress: Progress | None = None,
) -> Path:
    """Begin a run with weights that are there already: its checkpoint of step 0 holds them.

    What a run folder is used for works on it: generation, evaluation, and, as its training,
    `train(recipe, run_dir, resume=True)`.

    Args:
        recipe: what the run is to be.
        run_dir: the run folder to make.
        weights: the model's `state_dict`.
        progress: called while data is prepared.

    Returns:
        The run folder.

    Raises:
        RecipeError: the recipe can't be built, or its data can't be had.
        StrawberryError: the weights are not finite, or not this model's, or the folder is taken or
            can't be written.
    """
    for name, tensor in weights.items():
        if not all_finite([tensor]):
            raise StrawberryError(f"the weights are not finite: {name}")
    machine = machine_for(recipe)
    build(recipe, "meta")  # a recipe that can't be built fails before any data is read
    run = RunFolder(run_dir)
    if run.exists:
        raise StrawberryError(f"{run.path}: holds a run; name another folder")
    run.hold()
    try:
        session = open_session(recipe, run, machine, World(), progress=progress)
        try:
            session.model.load_state_dict(weights)
            with session.optimizers.evaluating():
                session.write(RecentSums(machine))
            run.begin(recipe, session.dataset, machine)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise StrawberryError(f"the weights are not this model's: {reason}") from error
        finally:
            session.batches.close()
            if not run.exists:
                shutil.rmtree(run.checkpoints, ignore_errors=True)
                run.tokenizer_file.unlink(missing_ok=True)
                run.info_file.unlink(missing_ok=True)
    finally:
        run.release()
    return run.path
