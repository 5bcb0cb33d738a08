"""The model of a run on the meta device, and the assignment of its parameters to optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strawberry.errors import RecipeError
from strawberry.model.build import build
from strawberry.training.engine import check_divides
from strawberry.training.optimizers import Assignment, assign

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe


@dataclass(frozen=True, slots=True)
class Outline:
    """A run's model without its memory; computed once and passed on.

    Attributes:
        recipe: the recipe of the run.
        model: its model, on the meta device.
        assignments: the optimizers and the parameters of that model that each one takes.
    """

    recipe: Recipe
    model: LanguageModel
    assignments: tuple[Assignment, ...]

    def check_ranks(self, size: int) -> None:
        """Raises RecipeError if this many ranks can't train the recipe.

        They can't where they would have unlike numbers of sequences, or where an optimizer doesn't
        say that it can step shards.
        """
        check_divides(self.recipe, size)
        if size == 1 or self.recipe.train.parallel != "fsdp":
            return
        problems = [
            a.component.problem(
                "", f"{a.component.entry.name!r} doesn't support sharded parameters; write `ddp`"
            )
            for a in self.assignments
            if not a.factory.shards
        ]
        if problems:
            raise RecipeError(problems)


def outline(recipe: Recipe) -> Outline:
    """The outline of a recipe; raises RecipeError if its model or its optimizers can't be had."""
    model = build(recipe, "meta")
    return Outline(recipe, model, tuple(assign(recipe, model.parameter_infos())))
