"""Memory and traffic of each rank, from the model on the meta device: nothing is allocated.

W ranks, P parameters. All numbers are in bytes, for the rank with the most. Sharded tensors are
divided along their first dimension, in equal pieces except the last ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from strawberry.contracts import ParameterInfo
from strawberry.runs.averages import Averages
from strawberry.training.engine import check_divides
from strawberry.training.optimizers import bound, state_bytes

if TYPE_CHECKING:
    from strawberry.model.accounting import CostReport
    from strawberry.training.outline import Outline

WIDE = 4
"""Bytes of a float32, the dtype of parameters, gradients and states."""


@dataclass(frozen=True, slots=True)
class RankCost:
    """Memory and traffic of one of `ranks`.

    Attributes:
        parallel: `none`, `ddp` or `fsdp`.
        parameters: bytes of parameters between steps.
        gradients: bytes of gradients between backward pass and step.
        optimizer: bytes of optimizer state.
        averages: bytes of averages of the weights.
        gathered: maximum in addition to those: unsharded parameters of the root and of two units
            (the current and the next one), and the unsharded gradients of the root and of one unit.
        activations: bytes saved for the backward pass of this rank's sequences, and of copies of
            weights in bfloat16, if the recipe computes in it.
        gathers: all-gathers of parameters in a micro-batch.
        sent: bytes that a rank sends in a step, by ring algorithms.
    """

    ranks: int
    parallel: Literal["none", "ddp", "fsdp"]
    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    gathers: int
    sent: int
    averages: int = 0

    @property
    def total(self) -> int:
        """The maximum of memory in use at once."""
        held = (self.parameters, self.gradients, self.optimizer, self.gathered, self.activations)
        return sum(held) + self.averages

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return {**asdict(self), "total": self.total}


def rank_cost(outline: Outline, report: CostReport, ranks: int = 1) -> RankCost:
    """Memory of training: the whole model in one process, or a rank's part under `train.parallel`.

    `report` is what the outlined model costs. Raises RecipeError if the ranks can't divide a batch.
    """
    recipe, model = outline.recipe, outline.model
    check_divides(recipe, ranks)
    once = report.activation_once_bytes
    activations = once + (report.activation_bytes - once) // ranks
    if ranks > 1 and recipe.train.parallel == "fsdp":
        # What is gathered in bfloat16 is not copied once more.
        inside = {p for unit in model.stack.units() for p in unit.parameters()}
        outside = {name for name, p in model.named_parameters() if p not in inside}
        activations += sum(size for name, size in report.casts.items() if name in outside)
        return _sharded(outline, activations, ranks)
    weights = WIDE * _count(model.parameters())
    return RankCost(
        ranks=ranks,
        parallel="none" if ranks == 1 else "ddp",
        parameters=weights,
        gradients=weights,
        optimizer=state_bytes(outline.assignments),
        gathered=0,
        activations=activations + report.cast_bytes,
        averages=Averages(recipe, model).copies * weights,
        gathers=0,
        sent=2 * _ring(weights, ranks),
    )


def _sharded(outline: Outline, activations: int, ranks: int) -> RankCost:
    recipe, model = outline.recipe, outline.model
    parts = recipe.train.gradient_accumulation_steps
    narrow = 2 if recipe.train.dtype == "bfloat16" else WIDE
    mine = [_shard(info, ranks) for info in model.parameter_infos()]
    held = WIDE * _count(info.parameter for info in mine)
    padded = sum(p.numel() * ranks for p in (info.parameter for info in mine))
    sizes = [_padded(unit, ranks) for unit in model.stack.units()]
    inside = sum(sizes)
    root = padded - inside
    largest = sorted(sizes, reverse=True)
    gathered = WIDE * 2 * root + narrow * sum(largest[:2]) + WIDE * largest[0]
    whole_gradients = WIDE * _count(model.parameters())
    gathers = parts * (WIDE * root + narrow * 2 * inside) + _for_step(outline.assignments, narrow)
    return RankCost(
        ranks=ranks,
        parallel="fsdp",
        parameters=held,
        # Between micro-batches gradients are whole, so that they travel once.
        gradients=held if parts == 1 else whole_gradients + held,
        optimizer=state_bytes(bound(outline.assignments, mine)),
        gathered=gathered,
        activations=activations,
        averages=Averages(recipe, model).copies * held,
        gathers=1 + 2 * len(sizes),
        sent=_ring(gathers, ranks) + _ring(WIDE * padded, ranks),
    )


def _for_step(assignments: Sequence[Any], narrow: int) -> int:
    """Bytes of matrices that an optimizer gathers at each step: Muon's, except stacks."""
    return narrow * sum(
        info.parameter.numel()
        for assignment in assignments
        if assignment.factory.needs_whole
        for info in assignment.infos
        if info.parameter.ndim == 2
    )


def _shard(info: ParameterInfo, ranks: int) -> ParameterInfo:
    """The largest of a parameter's shards."""
    first, *rest = info.parameter.shape or (1,)
    shape = (-(-first // ranks), *rest) if info.parameter.ndim else ()
    return ParameterInfo(info.name, nn.Parameter(torch.empty(shape, device="meta")), info.kind)


def _padded(module: nn.Module, ranks: int) -> int:
    """Parameters of a module, each padded to equal shards."""
    return sum(
        -(-p.shape[0] // ranks) * ranks * math.prod(p.shape[1:]) for p in module.parameters()
    )


def _count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


def _ring(size: int, ranks: int) -> int:
    """Bytes that a rank sends in an all-gather or reduce-scatter of `size` bytes."""
    return size * (ranks - 1) // ranks
