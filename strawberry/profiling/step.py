"""Measure a training step's time and memory, by component.

Rows don't overlap, and add up to the whole step; see marks.py for the method.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from strawberry.contracts import Join, Norm, PerStep
from strawberry.data import open_dataset
from strawberry.errors import StrawberryError
from strawberry.model.recursion import Recursion
from strawberry.model.stack import BlockNode
from strawberry.profiling.marks import REST, ComponentMarks, FlopCounter, SavedBytes
from strawberry.ranks.world import World
from strawberry.recipe.seeds import seed_of
from strawberry.recipe.spec import BlockSpec, RepeatSpec
from strawberry.recipe.unrolled import expand
from strawberry.runs import randomness
from strawberry.runs.device import Machine, machine_for
from strawberry.runs.plot import canvas
from strawberry.training.batches import Batches
from strawberry.training.documents import separator
from strawberry.training.engine import engine_for
from strawberry.training.optimizers import Optimizers
from strawberry.training.space import peak_memory
from strawberry.training.step import Step

if TYPE_CHECKING:
    from strawberry.data import Progress
    from strawberry.recipe.spec import NodeSpec, Recipe

Seconds: TypeAlias = defaultdict[str, float]

WARM_UP: Final = 2
SIDE: Final = 2048
"""Side of the matrices whose product measures the device's peak."""

ENGINE: Final = "autograd::engine::evaluate_function: "
DATA, NORMS, ROUTER, HEAD = "data", "norms", "routers", "head and loss"
CLIP, OPTIMIZER = "gradient norm", "optimizer"


@dataclass(slots=True)
class ProfileRow:
    """A component's part of a step; a shared block with several uses is one row.

    Attributes:
        name: its path in the recipe, or a description.
        component: its component.
        uses: number of uses in a step.
        seconds: time of a step, forward and backward.
        backward_seconds: the backward part of it.
        kept_bytes: bytes saved for the backward pass; for the optimizer, its state.
        flops: counted FLOPs of its matrix products in a step.
    """

    name: str
    component: str = ""
    uses: int = 0
    seconds: float = 0.0
    backward_seconds: float = 0.0
    kept_bytes: int = 0
    flops: int = 0


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Time and memory of a training step.

    Attributes:
        name: the recipe's name.
        device: the device.
        dtype: the dtype.
        tokens: tokens of a step.
        seconds: median time of a step without the profiler.
        profiled_seconds: time of a step under the profiler, the total of the rows' shares.
        peak_flops: FLOPs a second of a large matrix product in that dtype.
        peak_bytes: peak memory of tensors, if the device reports it; else None.
        rows: the rows, in the order of the model.
    """

    name: str
    device: str
    dtype: str
    tokens: int
    seconds: float
    profiled_seconds: float
    peak_flops: float
    peak_bytes: int | None
    rows: list[ProfileRow] = field(default_factory=list)


def profile(recipe: Recipe, *, steps: int = 5, progress: Progress | None = None) -> StepProfile:
    """Run a few training steps of a recipe and measure their time and memory.

    The model runs in eager mode, even if the recipe compiles, because components are
    distinguishable there. Nothing is written, and no run is started.

    Args:
        recipe: the recipe.
        steps: number of profiled steps; as many are timed without a profiler.
        progress: progress callback while data is prepared.

    Raises:
        RecipeError: the recipe can't be built, or its data can't be opened.
        StrawberryError: `steps` is below 1.
    """
    if steps < 1:
        raise StrawberryError(f"steps must be at least 1, got {steps}")
    machine = replace(machine_for(recipe), compiled=False)
    dataset = open_dataset(recipe, progress=progress)
    randomness.seed(seed_of(recipe, "dropout"))
    engine = engine_for(recipe, World(), machine)
    engine.model.train()
    engine.model.separator = separator(recipe, dataset)
    optimizers = Optimizers(recipe, engine.model.parameter_infos(), machine.device)
    with ExitStack() as stack:
        batches = Batches(dataset, recipe, machine.device)
        stack.callback(batches.close)
        limit = recipe.train.grad_clip
        step = _Marked(recipe, Step(engine, optimizers, batches.train, machine, limit))
        plain = step.timed(WARM_UP + steps)[WARM_UP:]
        rows = step.follow()
        costs = step.costs()
        seconds, backward, whole = step.profiled(steps)
    scale = median(plain) / whole
    uses = {name: count // (2 + steps) for name, count in step.marks.uses.items()}
    known = sum(seconds.values()) + sum(backward.values())
    seconds[REST] += max(0.0, whole - known)
    for row in rows:
        row.uses = uses.get(row.name, 0)
        row.backward_seconds = backward[row.name] * scale
        row.seconds = seconds[row.name] * scale + row.backward_seconds
        row.kept_bytes += costs.kept[row.name]
        row.flops = costs.flops[row.name]
    return StepProfile(
        name=recipe.name,
        device=str(machine.device),
        dtype=str(machine.dtype).removeprefix("torch."),
        tokens=recipe.model.block_size
        * recipe.train.batch_size
        * recipe.train.gradient_accumulation_steps,
        seconds=median(plain),
        profiled_seconds=whole,
        peak_flops=_peak_flops(machine),
        peak_bytes=peak_memory(machine.device),
        rows=[row for row in rows if row.uses or row.seconds or row.kept_bytes],
    )


@dataclass(frozen=True, slots=True)
class _Costs:
    """FLOPs and saved bytes of a step, by row."""

    flops: Counter[str]
    kept: Counter[str]


class _Marked:
    """A training step with marked parts."""

    def __init__(self, recipe: Recipe, step: Step) -> None:
        self.recipe, self.step, self.machine = recipe, step, step.machine
        self.model, self.optimizers = step.engine.model, step.optimizers
        self.marks = marks = ComponentMarks(step.machine)
        self.number = 0
        step.rows = marks.wrap(step.rows, DATA)
        step.apply = marks.wrap(step.apply, OPTIMIZER)  # type: ignore[method-assign]
        step.engine.loss = marks.wrap(step.engine.loss, HEAD)  # type: ignore[method-assign]
        step.engine.clip = marks.wrap(step.engine.clip, CLIP)  # type: ignore[method-assign]

    def timed(self, steps: int = 1) -> list[float]:
        """Run this many steps; returns the seconds of each."""
        numbers = range(self.number, self.number + steps)
        self.number += steps
        self.marks.begin()
        return list(self.step.timed(numbers))

    def follow(self) -> list[ProfileRow]:
        """Mark the model's parts; returns a row for each, in order."""
        model, marks = self.model, self.marks
        rows = {name: ProfileRow(name) for name in (DATA, "embedding")}
        marks.follow(model.embedding, "embedding")
        norms: list[nn.Module | None] = [model.embedding_norm, model.norm]
        blocks = [module for module in model.modules() if isinstance(module, BlockNode)]
        for block, spec in zip(blocks, block_specs(self.recipe.model.stack), strict=True):
            block._forward = marks.recomputing(block._forward)  # type: ignore[method-assign]  # noqa: SLF001
            for part, component in ((block.attention, spec.attention), (block.ffn, spec.ffn)):
                if part is not None and component is not None:
                    name = component.at.path.removeprefix("model.")
                    rows.setdefault(name, ProfileRow(name, type(part).__name__))
                    marks.follow(part, name)
            norms += norms_of(block)
        for norm in norms:
            for each in [norm] if not isinstance(norm, PerStep) else norm.norms:
                marks.follow(each, NORMS)
        for recursion in (m for m in model.modules() if isinstance(m, Recursion)):
            if recursion.router is not None:
                rows[ROUTER] = ProfileRow(ROUTER, type(recursion.router).__name__)
                recursion.router.route = marks.wrap(recursion.router.route, ROUTER)  # type: ignore[method-assign]
        model.trunk = marks.wrap(model.trunk, REST)  # type: ignore[method-assign]
        state = sum(
            value.nbytes
            for _, optimizer in self.optimizers.parts
            for kept in optimizer.state.values()
            for value in kept.values()
            if isinstance(value, Tensor)
        )
        rows |= {name: ProfileRow(name) for name in (NORMS, REST, HEAD, CLIP)}
        names = [type(optimizer).__name__ for _, optimizer in self.optimizers.parts]
        rows[OPTIMIZER] = ProfileRow(OPTIMIZER, ", ".join(dict.fromkeys(names)), kept_bytes=state)
        marks.uses.clear()
        return list(rows.values())

    def costs(self) -> _Costs:
        """FLOPs and saved bytes, each measured in a separate step."""
        flops, kept = FlopCounter(self.marks), SavedBytes(self.marks, self.model)
        with flops:
            self.timed()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            self.timed()
        return _Costs(flops.counted, kept.counted)

    def profiled(self, steps: int) -> tuple[Seconds, Seconds, float]:
        """Seconds of a step under the profiler: forward and backward by row, and in total."""
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells standard error that it starts
        # Kineto, which times kernels on the device, has activities of its own for each kind.
        on_cuda = self.machine.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
        self.marks.seconds.clear()
        self.marks.recomputed.clear()
        backward: defaultdict[str, float] = defaultdict(float)
        whole = 0.0
        for _ in range(steps):
            with torch.profiler.profile(activities=activities) as profiler:
                whole += sum(self.timed())
            for event in profiler.events():
                if event.name.startswith(ENGINE):
                    spent = event.device_time_total if on_cuda else event.cpu_time_total
                    backward[self.marks.owner(event.sequence_nr)] += spent / 1e6
        for name, spent in self.marks.recomputed.items():
            backward[name] += spent
        for seconds in (self.marks.seconds, backward):
            for name in seconds:
                seconds[name] /= steps
        return self.marks.seconds, backward, whole / steps


def block_specs(stack: tuple[NodeSpec, ...]) -> Iterator[BlockSpec]:
    """The recipe's entry of each block, in the order of construction."""
    for node in expand(stack):
        if isinstance(node, BlockSpec):
            yield node
        else:
            for _ in range(node.count if isinstance(node, RepeatSpec) else 1):
                yield from block_specs(node.stack)


def _peak_flops(machine: Machine) -> float:
    """FLOPs a second of a product of two large matrices."""
    a, b = (torch.randn(SIDE, SIDE, device=machine.device, dtype=machine.dtype) for _ in range(2))
    least = math.inf
    for _ in range(4):
        machine.synchronize()
        began = time.perf_counter()
        a @ b
        machine.synchronize()
        least = min(least, time.perf_counter() - began)
    return 2 * SIDE**3 / least


def draw(profile: StepProfile, out: str | Path) -> Path:
    """Draw a profile's rows as bars, forward and backward; the suffix of `out` is the format.

    Raises StrawberryError if matplotlib is not installed, or the file can't be written.
    """
    figure, save = canvas(8, 1.4 + 0.36 * len(profile.rows))
    axes = figure.subplots()
    rows = profile.rows[::-1]
    names = [f"{row.name} x{row.uses}" if row.uses > 1 else row.name for row in rows]
    back = [1e3 * row.backward_seconds for row in rows]
    ahead = [1e3 * (row.seconds - row.backward_seconds) for row in rows]
    axes.barh(names, ahead, color="C0", label="forward, or once")
    axes.barh(names, back, left=ahead, color="C1", label="backward")
    longest = max(row.seconds for row in rows) * 1e3
    for place, row in enumerate(rows):
        share = row.seconds / profile.seconds
        text = f"{share:.0%}"
        if row.flops and row.seconds:
            text += f", {row.flops / row.seconds / profile.peak_flops:.0%} of peak"
        axes.text(1e3 * row.seconds + 0.01 * longest, place, text, va="center", fontsize="small")
    axes.set_xlim(0, 1.3 * longest)
    axes.set_xlabel("milliseconds of a step")
    axes.set_title(
        f"{profile.name}: {1e3 * profile.seconds:.1f} ms a step of {profile.tokens:,} tokens, "
        f"{profile.device}, {profile.dtype}",
        loc="left",
        fontsize="medium",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return save(out)


def norms_of(block: BlockNode) -> Iterator[nn.Module]:
    """The norms before a block's parts, and those with which its joins normalise."""
    for name, module in block.named_children():
        if name.endswith("_norm"):
            yield module
        elif isinstance(module, Join):
            yield from (m for m in module.children() if isinstance(m, (Norm, PerStep)))
