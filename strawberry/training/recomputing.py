"""Check that a run may recompute its activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from strawberry.errors import RecipeError
from strawberry.model.mode import in_mode
from strawberry.referee.recomputing import recomputing_breach

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.ranks.world import World
    from strawberry.recipe.spec import Recipe
    from strawberry.runs.device import Machine

_SHORT: Final = 67
"""Number of tokens of the row by which gradients are compared."""


def check_recomputing(model: LanguageModel, world: World, recipe: Recipe, machine: Machine) -> None:
    """Raises RecipeError if recomputed activations change the model.

    It takes five forward and backward passes over a short row, before anything is compiled.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    shape = 1, min(_SHORT, recipe.model.block_size)
    ids = torch.randint(recipe.model.vocab_size, shape, generator=generator).to(machine.device)

    def objective() -> Tensor:
        with machine.autocast():
            return model.loss(ids, ids).total

    with in_mode(model, training=True):
        breach = recomputing_breach(model, objective, lambda own: bool(world.most(own)))
    if breach is not None:
        message = (
            f"recomputation changes the model: {breach}; keep it in `use.memo`, which "
            "recomputation carries along"
        )
        raise RecipeError([recipe.train.at.problem("checkpoint_activations", message)])
