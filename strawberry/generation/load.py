"""Load a trained model from its run folder."""

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
from strawberry.runs.averages import Averages
from strawberry.runs.curricula import Curricula
from strawberry.runs.device import machine_for
from strawberry.runs.folder import RunFolder

if TYPE_CHECKING:
    from strawberry.data import Tokenizer
    from strawberry.model.language_model import LanguageModel
    from strawberry.plugin import Plugins
    from strawberry.recipe.spec import Recipe


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run's recipe, and its model at the newest intact checkpoint, or at the best.

    `warnings` names damaged checkpoints that were skipped.
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


def load_teachers(model: LanguageModel, recipe: Recipe) -> None:
    """Load the models that the objective learns from, where the model is.

    Raises RecipeError if one can't be had, or has another vocabulary.
    """
    spec = recipe.objective
    for teacher in model.teachers:
        with spec.located():
            run = load_run(teacher.run, device=str(model.device), plugins=recipe.plugins)
            theirs, ours = run.recipe.model.vocab_size, recipe.model.vocab_size
            if theirs != ours:
                message = f"{teacher.run}: knows {theirs} ids, and this model {ours}"
                raise StrawberryError(message)
        teacher.model = run.model.requires_grad_(requires_grad=False)


def as_trained(model: LanguageModel, recipe: Recipe, step: int) -> None:
    """Give a model the depth, and the other settings, that its last step of training had."""
    Curricula(recipe).put(model, max(0, step - 1))


def load_run(
    folder: str | Path,
    *,
    device: str = "auto",
    plugins: Plugins | None = None,
    best: bool = False,
    weights: WeightFormat | None = None,
    average: str | None = None,
) -> LoadedRun:
    """Load a run for evaluation or generation, in eval mode.

    Args:
        folder: the run folder.
        device: replaces the recipe's, because a run may be used on another machine.
        plugins: None takes the installed ones.
        best: load the checkpoint with the lowest val_loss (`train.keep_best`).
        average: name of an average of the weights to take in their place.
        weights: pack the matrices for generation, see `pack_weights`; None doesn't pack.

    Raises:
        StrawberryError: there is no run, no intact checkpoint in it, or the format is unknown.
    """
    run = RunFolder(folder)
    if not run.exists:
        raise StrawberryError(f"{run.path}: is not a run folder (it has no recipe.yaml)")
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
    as_trained(model, recipe, newest.state["step"])
    if average is not None:
        averages = Averages(recipe, model)
        averages.load(newest.optimizer)
        averages.put(average, newest.state["step"])
    model.eval().to(target)
    if weights is not None:
        pack_weights(model, weights)
    return LoadedRun(run.path, recipe, model, newest.state["step"], warnings)
