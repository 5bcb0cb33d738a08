"""Engines: one process, copies of the model, or shards among ranks.

An engine computes losses and gradients of the whole batch, for any distribution of its sequences
over ranks. The loop needs nothing else of it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from strawberry.contracts import Prediction, full_tensor, shard_like
from strawberry.errors import RecipeError
from strawberry.generation.load import load_teachers
from strawberry.model.build import build
from strawberry.model.stack import recompute_blocks
from strawberry.ranks.world import World
from strawberry.runs import checkpoint
from strawberry.runs.checkpoint import CheckpointData, CheckpointPolicy
from strawberry.runs.curricula import Curricula
from strawberry.runs.memory import keep_freed_memory
from strawberry.training.compiling import compile_model
from strawberry.training.recomputing import check_recomputing

if TYPE_CHECKING:
    from strawberry.model.batch import Loss, RowNats
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe
    from strawberry.runs.device import Machine

R = TypeVar("R")


class Engine:
    """The engine of one process, and the base of the others.

    Args:
        model: the model, as built.
        world: the ranks.
    """

    def __init__(self, model: LanguageModel, world: World | None = None) -> None:
        self.model = model
        self.world = world if world is not None else World()
        self._saved: list[tuple[int, Path]] = []

    def divisor(self, targets: Sequence[Tensor]) -> Tensor:
        """Divisor of a step's sums over targets, from this rank's targets of each part.

        Gradients are means over ranks, so it is the mean over ranks of the number of counted
        targets. It stays on the device, without a synchronisation.
        """
        count = torch.stack([(y >= 0).sum() for y in targets]).sum()
        return self.world.sum(count).clamp(min=1) / self.world.size

    def loss(self, x: Tensor, y: Tensor, count: Tensor, share: float = 1.0) -> Loss:
        """The contribution of this rank's rows (B, T) of a micro-batch to the loss of a step.

        Over micro-batches parts are summed; over ranks their mean is taken. `count` comes from
        `divisor`; `share` is the micro-batch's share of the step's tokens.
        """
        return self.model.loss(x, y, count=count, share=share)

    def measure(
        self, x: Tensor, y: Tensor, rows: Tensor | None = None, *, answers: bool = False
    ) -> RowNats:
        """The evaluation of rows (B, T), whose numbers are `rows` (B,)."""
        return self.model.measure(x, y, rows, answers=answers)

    def hidden(self, x: Tensor) -> Tensor:
        """Ids (B, T) -> hidden states (B, T, C) below the head; for evaluation."""
        return self.model.hidden(x)

    def logits(self, x: Tensor) -> Tensor:
        """Ids (B, T) -> logits (B, T, V); for evaluation."""
        logits: Tensor = self.model(x)
        return logits

    def predictions(self, x: Tensor, y: Tensor) -> list[Prediction]:
        """The evaluation's scores of ids and targets (B, T)."""
        return self.model.predictions(x, y)

    def part(self, last: bool) -> AbstractContextManager[object]:
        """Context of a micro-batch's passes: gradients are reduced only in the last one."""
        return contextlib.nullcontext()

    def clip(self, limit: float) -> Tensor:
        """The norm of the whole gradient, which is scaled down to `limit` unless that is 0."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        return full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf))

    def save(self, folder: Path, moment: CheckpointData, keep: CheckpointPolicy) -> None:
        """Save a checkpoint; raises StrawberryError."""
        path = self.world.by_main(lambda: checkpoint.save(folder, moment, keep))
        self._saved.append((moment.state["step"], path))

    def saved(self) -> list[tuple[int, Path]]:
        """Steps and folders of checkpoints completed on disk since the last call."""
        saved, self._saved = self._saved, []
        return saved

    def settle(self) -> None:
        """Wait until all checkpoints are complete on disk; raises StrawberryError."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the parameters and buffers of a checkpoint, unsharded or sharded."""
        own = self.model.state_dict()
        placed = {k: shard_like(t, own[k]) if k in own else t for k, t in tensors.items()}
        self.model.load_state_dict(placed)

    def compile(self, machine: Machine) -> None:
        """Compile the model for the machine."""
        compile_model(self.model, machine)


class ReplicatedEngine(Engine):
    """Every rank has the whole model; gradients are averaged (DistributedDataParallel)."""

    def __init__(self, model: LanguageModel, world: World, machine: Machine) -> None:
        from torch.nn.parallel import DistributedDataParallel

        super().__init__(model, world)
        # Only where no token may run even the first step can a pass leave parameters out.
        routers = [r.router for r in model.stack.recursions() if r.router is not None]
        firsts = [router.shares()[0] for router in routers]
        firsts += [min(r.loop.shares(r.steps)) for r in model.stack.recursions() if r.loop]
        optional = any(share < 1 for share in firsts)
        self.replica = DistributedDataParallel(
            _LossOf(model),
            # Only where a rank has one of several devices, as on CUDA, is there one to name.
            device_ids=[machine.device] if machine.device.type == "cuda" else None,
            forward_sync_buffers=False,  # each is a function of what ranks have agreed on
            gradient_as_bucket_view=True,
            find_unused_parameters=optional,
        )

    def loss(self, x: Tensor, y: Tensor, count: Tensor, share: float = 1.0) -> Loss:
        """The contribution of this rank's rows to the loss of a step."""
        return self.replica(x, y, count, share)

    def part(self, last: bool) -> AbstractContextManager[object]:
        """Context of a micro-batch's passes: gradients are reduced only in the last one."""
        return contextlib.nullcontext() if last else self.replica.no_sync()


class _LossOf(nn.Module):
    """A model whose forward pass is its loss."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor, count: Tensor, share: float) -> Loss:
        """The loss of ids x (B, T) and targets y (B, T)."""
        loss = self.model.loss(x, y, count, share=share)
        idle = self.model.stack.idle()
        if not idle:
            return loss
        # Ranks exchange every gradient: these are zero, and dropped before the step.
        nothing = 0 * torch.stack([parameter.sum() for parameter in idle]).sum()
        return loss._replace(total=loss.total + nothing)


class ShardedEngine(Engine):
    """Every rank has a shard of each parameter, its gradient and its state (FSDP2).

    Parameters are gathered by unit: a block, or an outermost recursion with all of its blocks. A
    recursion uses its parameters at every step, so they are gathered once for all of its steps, and
    its gradients are reduced once. Parameters outside blocks (embedding, head, weight sources of
    the whole stack) are gathered first and kept to the end of the backward pass.

    With bfloat16, the parameters of blocks are gathered in it, and gradients are summed in float32.
    Those outside blocks stay in float32, and so does the residual stream, as under autocast in one
    process.

    Each unit is divided after its initialisation, and its shard moved to the device: a rank never
    holds more than its shards and one unit.
    """

    def __init__(self, recipe: Recipe, world: World, machine: Machine) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import (
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        from strawberry.runs.shard_writer import ShardWriter

        mesh = init_device_mesh(machine.device.type, (world.size,))
        lower = None if machine.dtype == torch.float32 else machine.dtype
        self.units: list[Any] = []

        def divide(unit: nn.Module, dtype: torch.dtype | None = lower) -> None:
            policy = MixedPrecisionPolicy(
                param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
            self.units.append(fully_shard(unit, mesh=mesh, mp_policy=policy))

        model = build(recipe, place=divide)
        divide(model, None)
        super().__init__(model, world)
        register_fsdp_forward_method(model, "loss")
        register_fsdp_forward_method(model, "measure")
        register_fsdp_forward_method(model, "predictions")
        register_fsdp_forward_method(model, "hidden")
        self.writer = ShardWriter(world)

    def measure(
        self, x: Tensor, y: Tensor, rows: Tensor | None = None, *, answers: bool = False
    ) -> RowNats:
        """The evaluation of rows (B, T), whose numbers are `rows` (B,)."""
        return self._divided(super().measure(x, y, rows, answers=answers))

    def hidden(self, x: Tensor) -> Tensor:
        """Ids (B, T) -> hidden states (B, T, C) below the head; for evaluation."""
        return self._divided(super().hidden(x))

    def logits(self, x: Tensor) -> Tensor:
        """Ids (B, T) -> logits (B, T, V); for evaluation."""
        return self._divided(super().logits(x))

    def predictions(self, x: Tensor, y: Tensor) -> list[Prediction]:
        """The evaluation's scores of ids and targets (B, T)."""
        return self._divided(super().predictions(x, y))

    def _divided(self, result: R) -> R:
        """Put parameters back into shards without a backward pass; returns `result`."""
        for unit in self.units:
            unit.reshard()
        return result

    @contextlib.contextmanager
    def part(self, last: bool) -> Iterator[None]:
        """Context of a micro-batch's passes: gradients are reduced only in the last one."""
        self.units[-1].set_requires_gradient_sync(last)
        yield

    def save(self, folder: Path, moment: CheckpointData, keep: CheckpointPolicy) -> None:
        """Start to save a sharded checkpoint; raises StrawberryError if the last one failed."""
        self.writer.save(folder, moment, keep)

    def saved(self) -> list[tuple[int, Path]]:
        """Steps and folders of checkpoints completed on disk since the last call."""
        return self.writer.done()

    def settle(self) -> None:
        """Wait until all checkpoints are complete on disk; raises StrawberryError."""
        self.writer.wait()

    def compile(self, machine: Machine) -> None:
        """Compile block by block, because parameters are gathered and released in between."""
        super().compile(replace(machine, compiled="blocks") if machine.compiled else machine)


def engine_for(recipe: Recipe, world: World, machine: Machine) -> Engine:
    """The recipe's engine, ready to train its freshly initialised model.

    Blocks recompute, the model is compiled, and freed memory is kept, as the recipe says.
    Everything that trains a model, or times its training, gets its engine here.

    Raises RecipeError if the model can't be built, or the batch can't be divided among the ranks.
    """
    check_divides(recipe, world.size)
    keep_freed_memory(recipe.train.keep_memory)  # from the first parameter on
    engine: Engine
    if world.size == 1:
        engine = Engine(build(recipe, machine.device))
    elif recipe.train.parallel == "fsdp":
        engine = ShardedEngine(recipe, world, machine)
    else:
        engine = ReplicatedEngine(build(recipe, machine.device), world, machine)
    load_teachers(engine.model, recipe)
    if recipe.train.checkpoint_activations:
        recompute_blocks(engine.model)
        check_recomputing(engine.model, world, recipe, machine)
    engine.compile(machine)
    return engine


def check_divides(recipe: Recipe, size: int) -> None:
    """Raises RecipeError if this many ranks can't have equally many sequences of a micro-batch."""
    sizes = [recipe.train.batch_size]
    if size > 1:
        sizes += [settings.batch_size or sizes[0] for _, settings in Curricula(recipe).stages()]
    batch = next((batch for batch in sizes if batch % size), 0)
    if batch % size:
        message = (
            f"{batch} sequences can't be divided among {size} ranks; batch_size counts all "
            f"ranks together, so write a multiple of {size}"
        )
        raise RecipeError([recipe.train.at.problem("batch_size", message)])
