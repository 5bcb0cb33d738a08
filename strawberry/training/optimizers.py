"""Several optimizers over one model, used as one."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from strawberry.contracts import (
    OptimizerSite,
    OptimizerSource,
    ParameterInfo,
    Schedule,
    ScheduleSite,
    StepScale,
    UpdateSize,
    shard_like,
)
from strawberry.errors import RecipeError, StrawberryError
from strawberry.recipe.spec import ComponentSpec
from strawberry.recipe.unrolled import unrolled_depth
from strawberry.runs.state import pack, unpack
from strawberry.training.apart import SplitMatrices

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe

MACHINERY = ("fused", "foreach", "capturable", "differentiable")
"""Options of a parameter group that depend on the machine, not on the run."""

RATE = "rate_factor"
"""The factor of a parametrization on the rate of a parameter group."""

PROBE = (7, 11, 13, 17, 19)
"""Sizes of small parameters for measuring state; all dimensions differ."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An optimizer and its parameters; `lr` is its peak learning rate."""

    component: ComponentSpec
    factory: OptimizerSource
    lr: float
    infos: tuple[ParameterInfo, ...]


def assign(recipe: Recipe, infos: Sequence[ParameterInfo]) -> list[Assignment]:
    """Give every parameter to the first optimizer whose selector matches and which claims it.

    Parameters that an optimizer does not claim go to its `rest`. Raises RecipeError if a parameter
    is left, or if a selector matches nothing.
    """
    left, site = list(infos), _site(recipe)
    assignments: list[Assignment] = []
    problems = []
    for spec in recipe.optimizer:
        chosen = [i for i in left if spec.params is None or _matches(spec.params, i)]
        if spec.params is not None and not chosen:
            kinds = ", ".join(sorted({info.kind for info in infos}))
            message = f"no parameters left for {spec.params!r}; kinds here: {kinds}"
            problems.append(spec.component.problem("params", message))
        taken = list(_take(spec.component, chosen, site))
        assignments += taken
        names = {info.name for assignment in taken for info in assignment.infos}
        left = [info for info in left if info.name not in names]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        message = f"no optimizer takes {left[0].name}{more}"
        problems.append(recipe.optimizer[-1].component.problem("", message))
    if problems:
        raise RecipeError(problems)
    return assignments


def _site(recipe: Recipe) -> OptimizerSite:
    train, model = recipe.train, recipe.model
    return OptimizerSite(
        learning_rate=train.learning_rate,
        max_iters=train.max_iters,
        warmup_iters=train.warmup_iters,
        n_embd=model.n_embd,
        depth=unrolled_depth(model.stack),
    )


def bound(assignments: Sequence[Assignment], infos: Sequence[ParameterInfo]) -> list[Assignment]:
    """The assignments of the parameters `infos`, where they were made for others of those names."""
    by_name = {info.name: info for info in infos}
    return [replace(a, infos=tuple(by_name[info.name] for info in a.infos)) for a in assignments]


def _take(
    spec: ComponentSpec, infos: Sequence[ParameterInfo], site: OptimizerSite
) -> Iterator[Assignment]:
    """The assignment of one optimizer, and those of its `rest`."""
    factory: OptimizerSource = spec.construct(site, contract=OptimizerSource)
    mine = tuple(info for info in infos if factory.claims(info))
    if mine:
        yield Assignment(spec, factory, factory.lr or site.learning_rate, mine)
    others = [info for info in infos if not factory.claims(info)]
    if others and isinstance(factory.rest, ComponentSpec):
        yield from _take(factory.rest, others, site)


def _matches(selector: str, info: ParameterInfo) -> bool:
    return selector == info.kind or fnmatchcase(info.name, selector)


def state_bytes(assignments: Sequence[Assignment]) -> int:
    """Bytes of optimizer state, measured by letting each optimizer step once on small parameters.

    A dimension of the resulting state is identified by its size.
    """
    return sum(_bytes_of(assignment) for assignment in assignments)


def _bytes_of(assignment: Assignment) -> int:
    infos = SplitMatrices(assignment.factory, assignment.infos).infos
    probes = {(i.kind, i.parameter.ndim): _probe(i) for i in infos}
    cpu = torch.device("cpu")
    optimizer = assignment.factory.make(tuple(probes.values()), lr=1e-3, device=cpu)
    optimizer.step()
    total = 0
    for info in infos:
        small = probes[info.kind, info.parameter.ndim].parameter
        real = dict(zip(small.shape, info.parameter.shape, strict=True))
        kept: dict[str, torch.Tensor] = {}
        pack(optimizer.state.get(small, {}), "", kept)
        total += sum(
            math.prod(real.get(size, size) for size in value.shape) * value.element_size()
            for value in kept.values()
            if value.ndim
        )
    return total


def _probe(info: ParameterInfo) -> ParameterInfo:
    parameter = torch.nn.Parameter(torch.zeros(PROBE[: info.parameter.ndim]))
    parameter.grad = torch.ones_like(parameter)
    return ParameterInfo(info.name, parameter, info.kind)


class Optimizers:
    """All optimizers of a run as one: stepped, zeroed, saved and loaded together.

    `scale` is what the learning rates of the recipe are multiplied with. `assignments` are those of
    parameters with the names of `infos`, where they are known already.
    """

    def __init__(
        self,
        recipe: Recipe,
        infos: Sequence[ParameterInfo],
        device: torch.device,
        assignments: Sequence[Assignment] | None = None,
    ) -> None:
        self.peak = recipe.train.learning_rate
        self.schedule = make_schedule(recipe)
        self.scale = 1.0
        self.parts = []
        self.apart = []
        known = assign(recipe, infos) if assignments is None else bound(assignments, infos)
        for assignment in known:
            apart = SplitMatrices(assignment.factory, assignment.infos)
            optimizer = assignment.factory.make(apart.infos, lr=assignment.lr, device=device)
            _scale_groups(optimizer, apart.infos, assignment.factory.update)
            apart.follow(optimizer)
            self.parts.append((assignment, optimizer))
            self.apart.append(apart)
        stepped = [info for apart in self.apart for info in apart.infos]
        self.names: dict[torch.Tensor, str] = {info.parameter: info.name for info in stepped}
        self.by_name = {info.name: info.parameter for info in stepped}
        self.infos = list(infos)

    def set_rates(self, step: int) -> None:
        """Set the learning rates of `step`: the schedule's, in proportion to each peak."""
        rate = self.schedule(step) * self.scale
        for assignment, optimizer in self.parts:
            scaled = rate if assignment.lr == self.peak else rate * (assignment.lr / self.peak)
            for group in optimizer.param_groups:
                group["lr"] = scaled * group.get(RATE, 1.0)
            assignment.factory.before_step(optimizer, step)

    @property
    def passes(self) -> int:
        """How many gradients of its batch a step takes."""
        return max((assignment.factory.passes for assignment, _ in self.parts), default=1)

    def after_pass(self, number: int) -> None:
        """Tell all of the gradient of a pass, from 0."""
        for (assignment, optimizer), apart in zip(self.parts, self.apart, strict=True):
            apart.take()
            assignment.factory.after_pass(optimizer, number)
            apart.put_back()

    def step(self, step: int) -> None:
        """Step all at the learning rates of `step`."""
        self.set_rates(step)
        for _, optimizer in self.parts:
            optimizer.step()

    def rates(self) -> dict[str, float]:
        """The learning rates of the last step: `lr` of the first optimizer.

        If another's differs, it is `lr_NAME`, by the name of its component.
        """
        told: dict[str, float] = {}
        for assignment, optimizer in self.parts:
            rate = assignment.factory.rate(optimizer) / optimizer.param_groups[0].get(RATE, 1.0)
            if not told:
                told["lr"] = rate
            elif rate != told["lr"]:
                name = base = f"lr_{assignment.component.entry.name}"
                for number in itertools.count(2):
                    if name not in told:
                        break
                    name = f"{base}_{number}"
                told[name] = rate
        return told

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for info in self.infos:
            info.parameter.grad = None

    def state(self) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        """Their whole state: tensors by path, and JSON values for each optimizer.

        Raises StrawberryError if an optimizer has state that can't be saved.
        """
        tensors: dict[str, torch.Tensor] = {}
        parts = []
        for number, (_, optimizer) in enumerate(self.parts):
            kept = {}
            for parameter, state in optimizer.state.items():
                if parameter not in self.names or not isinstance(state, dict):
                    raise StrawberryError(
                        f"state {parameter!r} of {type(optimizer).__name__} belongs to no "
                        "parameter, so it can't be saved"
                    )
                name = self.names[parameter]
                kept[name] = pack(state, f"{number}/{name}", tensors)
            groups = [_pack_group(g, f"{number}/groups/{i}", tensors)
                      for i, g in enumerate(optimizer.param_groups)]  # fmt: skip
            parts.append({"state": kept, "groups": groups})
        return tensors, parts

    def load(self, tensors: Mapping[str, torch.Tensor], parts: Sequence[Mapping[str, Any]]) -> None:
        """Restore the result of `state`; raises ValueError if it belongs to other parameters."""
        for (_, optimizer), part in zip(self.parts, parts, strict=True):
            for name, packed in part["state"].items():
                if name not in self.by_name:
                    raise ValueError(
                        f"the checkpoint has optimizer state for {name}, which this recipe doesn't "
                        "have"
                    )
                parameter = self.by_name[name]
                fused = bool(optimizer.defaults.get("fused"))
                optimizer.state[parameter] = {
                    key: unpack(value, tensors, partial(_place, parameter, key, fused))
                    for key, value in packed["dict"].items()
                }
            for group, packed in zip(optimizer.param_groups, part["groups"], strict=True):
                place = partial(_place, group["params"][0], "", True)
                group.update(unpack(packed, tensors, place))

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """In this context the parameters have the values for evaluation and saving."""
        with contextlib.ExitStack() as stack:
            for (assignment, optimizer), apart in zip(self.parts, self.apart, strict=True):
                apart.take()
                stack.callback(apart.put_back)
                stack.enter_context(assignment.factory.evaluating(optimizer))
                apart.put_back()
            yield

    def loaded(self) -> None:
        """Restore the training values, after parameters, tensors and numbers were loaded."""
        for (assignment, optimizer), apart in zip(self.parts, self.apart, strict=True):
            apart.take()
            assignment.factory.loaded(optimizer)
            apart.put_back()


def _scale_groups(
    optimizer: torch.optim.Optimizer, infos: Sequence[ParameterInfo], update: UpdateSize
) -> None:
    """Divide an optimizer's groups by the factors of the parametrization, and apply these."""
    steps = {info.parameter: info.step(update) for info in infos}
    if set(steps.values()) <= {StepScale()}:
        return
    groups = []
    for group in optimizer.param_groups:
        alike: dict[StepScale, list[torch.Tensor]] = {}
        for parameter in group["params"]:
            alike.setdefault(steps[parameter], []).append(parameter)
        groups += [_scaled_group({**group, "params": p}, step) for step, p in alike.items()]
    optimizer.param_groups[:] = groups


def _scaled_group(group: dict[str, Any], step: StepScale) -> dict[str, Any]:
    group[RATE] = step.rate
    for key, factor in (("lr", step.rate), ("weight_decay", step.decay), ("eps", step.epsilon)):
        if isinstance(group.get(key), float):
            group[key] *= factor
    return group


def _pack_group(group: dict[str, Any], path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A parameter group without its parameters and without values that are created again."""
    kept = {}
    for key, value in group.items():
        if key != "params" and key not in MACHINERY:
            with contextlib.suppress(StrawberryError):
                kept[key] = pack(value, f"{path}/{key}", tensors)
    return {"dict": kept}


def _place(parameter: torch.Tensor, key: str, fused: bool, tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the parameter's device; a step counter stays where torch wants it."""
    counter = tensor.ndim == 0 and (key == "step" or parameter.ndim > 0)
    if tensor.shape == parameter.shape:
        tensor = shard_like(tensor, parameter)
    return tensor.to(tensor.device if counter and not fused else parameter.device, copy=True)


def make_schedule(recipe: Recipe) -> Schedule:
    """The recipe's schedule."""
    train = recipe.train
    site = ScheduleSite(
        learning_rate=train.learning_rate,
        min_lr=train.least_rate,
        warmup_iters=train.warmup_iters,
        lr_decay_iters=train.lr_decay_iters or train.max_iters,
        cooldown_frac=train.cooldown_frac,
        max_iters=train.max_iters,
    )
    schedule: Schedule = recipe.schedule.construct(site)
    return schedule
