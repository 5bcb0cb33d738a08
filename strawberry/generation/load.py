"""A trained model from its run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.errors import StrawberryError
from strawberry.generation.packing import WeightFormat, pack_weights
from strawberry.model.build import build
from strawberry.recipe import load_recipe
from strawberry.runs import checkpoint
from strawberry.runs.device import machine_for
from strawberry.runs.folder import RunFolder

if TYPE_CHECKING:
    from strawberry.data import Tokenizer
    from strawberry.model.language_model import LanguageModel
    from strawberry.plugin import Plugins
    from strawberry.recipe.spec import Recipe


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run's recipe, and its model at the newest whole checkpoint, or at the best.

    `warnings` names damaged checkpoints that were passed over.
    """

    folder: Path
    recipe: Recipe
    model: LanguageModel
    step: int
    warnings: list[str]

    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer; raises StrawberryError if it has none."""
        from strawberry.data import load_run_tokenizer

        file = RunFolder(self.folder).tokenizer_file
        if not file.exists():
            raise StrawberryError(f"{self.folder}: this run's data has no tokenizer")
        return load_run_tokenizer(file, self.recipe)


def load_run(
    folder: str | Path,
    *,
    device: str = "auto",
    plugins: Plugins | None = None,
    best: bool = False,
    weights: WeightFormat | None = None,
) -> LoadedRun:
    """Load a run for evaluation or generation, in eval mode.

    Args:
        folder: of the run.
        device: takes the place of the recipe's: a run can be used where it was not trained.
        plugins: None takes those that are installed.
        best: take the checkpoint of the lowest val_loss (`train.keep_best`).
        weights: pack the matrices for generation, see `pack_weights`; None leaves all as it is.

    Raises:
        StrawberryError: there is no run, no whole checkpoint in it, or no such format.
    """
    run = RunFolder(folder)
    if not run.exists:
        raise StrawberryError(f"{run.path}: is not a run folder (there is no recipe.yaml in it)")
    recipe = load_recipe(run.path, plugins=plugins)
    recipe = replace(recipe, train=replace(recipe.train, device=device))
    target = machine_for(recipe).device
    load = checkpoint.load_best if best else checkpoint.load_newest
    newest, warnings = load(run.checkpoints)
    model = build(recipe)
    try:
        model.load_state_dict(newest.model)
    except RuntimeError as error:
        reason = json.dumps(str(error).splitlines()[:3])
        raise StrawberryError(f"{newest.path}: does not fit the run's recipe: {reason}") from error
    model.eval().to(target)
    if weights is not None:
        pack_weights(model, weights)
    return LoadedRun(run.path, recipe, model, newest.state["step"], warnings)
