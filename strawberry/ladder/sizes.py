"""What architectures are on a rung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from strawberry.ladder.scale import without_embeddings
from strawberry.model.accounting import account

if TYPE_CHECKING:
    from strawberry.ablate.cells import Cell
    from strawberry.ablate.preparing import PreparedPlan


@dataclass(frozen=True, slots=True)
class Size:
    """What an architecture is on a rung.

    Attributes:
        without_embeddings: unique parameters, token embedding and head aside.
        once: of these, those that each token meets once.
        recurred: of these, those inside of a recursion.
        steps: how often these are run; 1 without recursion.
        learning_rate: the peak.
    """

    without_embeddings: int
    once: int
    recurred: int
    steps: int
    learning_rate: float


def size_of(cell: Cell) -> Size:
    """What a cell's model is made of."""
    assert cell.recipe is not None
    report = account(cell.recipe, cell.model)
    recurred = [part for part in report.parts if part.uses > 1]
    inside = sum(part.parameters for part in recurred)
    uses = sum(part.uses * part.parameters for part in recurred)
    without = without_embeddings(cell.model)
    steps = round(uses / inside) if inside else 1
    return Size(without, without - inside, inside, steps, cell.recipe.train.learning_rate)


def size_rows(
    number: int, prepared: PreparedPlan, sizes: Mapping[str, Size], shared: Mapping[str, int]
) -> list[dict[str, Any]]:
    """What every architecture is on a rung, as JSON.

    Args:
        number: the rung's, from 0.
        prepared: what is trained there.
        sizes: of the architectures, by name.
        shared: steps that another run has done for each, by name; none if it is missing.
    """
    budgets = prepared.budgets
    return [
        {
            "rung": number,
            "architecture": cell.name,
            "parameters": budgets[cell.name].parameters,
            **asdict(sizes[cell.name]),
            "flops_per_token": budgets[cell.name].flops_per_token,
            "tokens": budgets[cell.name].tokens,
            "training_flops": budgets[cell.name].flops,
            "optimizer_steps": budgets[cell.name].steps,
            "shared_steps": shared.get(cell.name, 0),
            "patch": dict(cell.patch),
            "resized": cell.resized,
        }
        for cell in prepared.live
    ]
