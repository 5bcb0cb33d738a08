"""Modules of an objective: blocks next to the stack, and teacher models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.contracts import (
    Attention,
    Aux,
    ObjectiveSite,
    OwnBlock,
    Residual,
    Site,
    State,
    Teacher,
    Use,
    WeightSource,
)
from strawberry.errors import StrawberryError
from strawberry.model.stack import BlockNode, BlockUse, CacheShape

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel


def objective_site(
    model: LanguageModel, site: Site, block: Callable[[], BlockNode], folder: Path
) -> ObjectiveSite:
    """The site of the model's objective.

    Args:
        model: the rest of it, built.
        site: of what stands outside of all blocks.
        block: builds one as the stack ends with.
        folder: where runs are looked for that aren't here.
    """

    def own_block() -> OwnBlock:
        return BesideBlock(block(), model.weights, model.residual)

    def teacher(run: str) -> Teacher:
        model.teachers.append(RunTeacher(run, folder))
        return model.teachers[-1]

    blocks, steps = model.stack.watched()
    mixers = [module for module in model.modules() if isinstance(module, Attention)]
    return ObjectiveSite(
        **{item.name: getattr(site, item.name) for item in fields(Site)},
        n_blocks=blocks,
        n_steps=steps,
        both_ways=not any(mixer.causal for mixer in mixers),
        own_block=own_block,
        teacher=teacher,
    )


class BesideBlock(OwnBlock):
    """A block that stands beside the stack: it begins a residual stream of its own."""

    def __init__(self, block: BlockNode, weights: WeightSource, residual: Residual) -> None:
        super().__init__()
        self.block = block
        self._weights = [weights]  # the model's, which has its parameters
        self._residual = [residual]  # the same

    def forward(self, x: Tensor, use: Use) -> tuple[Tensor, Aux]:
        """(B, T, C) -> (B, T, C), and its terms."""
        (residual,) = self._residual
        stream, aux = self.block(residual.begin(x, use), use, 0)
        return residual.end(stream, use), aux

    def new_states(self, room: CacheShape) -> list[State]:
        """The states of its pieces, for cached calls."""
        return list(self.block.new_states(room, self._weights[0]))

    def visits(self) -> Iterator[BlockUse]:
        """The uses of the block, outside of the stack."""
        yield from self.block.visits((), self._weights[0], "objective")


class RunTeacher:
    """The model of a run, which is read where training begins.

    Attributes:
        run: the run's folder.
        model: its model once it is loaded, in evaluation.
    """

    def __init__(self, run: str, beside: Path) -> None:
        own = Path(run)
        self.run = own if own.is_absolute() or own.exists() else beside / own
        self.model: LanguageModel | None = None

    def hidden(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> its normalised states (B, T, its width), without gradient."""
        with torch.no_grad():
            return self._loaded().hidden(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Normalised states (N, its width) -> logits (N, V)."""
        with torch.no_grad():
            model = self._loaded()
            return model.head_logits(hidden.to(model.head_weight.dtype))

    def _loaded(self) -> LanguageModel:
        if self.model is None:
            raise StrawberryError(f"{self.run}: this run's model teaches, and is not loaded here")
        return self.model
