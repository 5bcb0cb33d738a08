"""Several optimizers over one model, driven as one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch

from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.contracts import Optimizer, ParameterInfo, Schedule, ScheduleSite
from strawberry.recipe.spec import ComponentSpec

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe

PLAIN = (bool, int, float, str, type(None))
"""What JSON gives back as it was."""

MACHINERY = ("fused", "foreach", "capturable", "differentiable")
"""Options of a parameter group that follow the machine, not the run."""

PROBE = (7, 11, 13, 17, 19)
"""Sizes of the small parameters with which state is measured; no two dimensions are alike."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An optimizer and the parameters that it takes; `lr` is its peak learning rate."""

    component: ComponentSpec
    factory: Optimizer
    lr: float
    infos: tuple[ParameterInfo, ...]


def assign(recipe: Recipe, infos: Sequence[ParameterInfo]) -> list[Assignment]:
    """Give every parameter to the first optimizer whose selector matches and which claims it.

    What an optimizer does not claim goes to its `rest`. Raises RecipeError if a parameter is left,
    or if a selector matches nothing.
    """
    left = list(infos)
    found: list[Assignment] = []
    problems = []
    for spec in recipe.optimizer:
        chosen = [i for i in left if spec.params is None or _matches(spec.params, i)]
        if spec.params is not None and not chosen:
            kinds = ", ".join(sorted({info.kind for info in infos}))
            message = f"no parameter is left for {spec.params!r}; kinds here: {kinds}"
            problems.append(spec.component.problem("params", message))
        taken = list(_take(spec.component, chosen, recipe.train.learning_rate))
        found += taken
        names = {info.name for assignment in taken for info in assignment.infos}
        left = [info for info in left if info.name not in names]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        message = f"no optimizer takes {left[0].name}{more}"
        problems.append(recipe.optimizer[-1].component.problem("", message))
    if problems:
        raise RecipeError(problems)
    return found


def _take(spec: ComponentSpec, infos: Sequence[ParameterInfo], peak: float) -> Iterator[Assignment]:
    """The assignment of one optimizer, and those of what it leaves to its `rest`."""
    factory: Optimizer = spec.construct()
    mine = tuple(info for info in infos if factory.claims(info))
    if mine:
        yield Assignment(spec, factory, factory.lr or peak, mine)
    others = [info for info in infos if not factory.claims(info)]
    if others and isinstance(factory.rest, ComponentSpec):
        yield from _take(factory.rest, others, peak)


def _matches(selector: str, info: ParameterInfo) -> bool:
    return selector == info.kind or fnmatchcase(info.name, selector)


def state_bytes(assignments: Sequence[Assignment]) -> int:
    """Bytes of optimizer state, measured by letting each optimizer step once on small parameters.

    A dimension of what that leaves is taken for that of the parameter which has its size.
    """
    return sum(_bytes_of(assignment) for assignment in assignments)


def _bytes_of(assignment: Assignment) -> int:
    infos = assignment.infos
    probes = {(i.kind, i.parameter.ndim): _probe(i) for i in infos}
    cpu = torch.device("cpu")
    optimizer = assignment.factory.make(tuple(probes.values()), lr=1e-3, device=cpu)
    optimizer.step()
    total = 0
    for info in infos:
        small = probes[info.kind, info.parameter.ndim].parameter
        real = dict(zip(small.shape, info.parameter.shape, strict=True))
        total += sum(
            math.prod(real.get(size, size) for size in value.shape) * value.element_size()
            for value in optimizer.state.get(small, {}).values()
            if isinstance(value, torch.Tensor) and value.ndim
        )
    return total


def _probe(info: ParameterInfo) -> ParameterInfo:
    parameter = torch.nn.Parameter(torch.zeros(PROBE[: info.parameter.ndim]))
    parameter.grad = torch.ones_like(parameter)
    return ParameterInfo(info.name, parameter, info.kind)


class Optimizers:
    """All optimizers of a run, as one: stepped, zeroed, saved and loaded together."""

    def __init__(
        self, recipe: Recipe, infos: Sequence[ParameterInfo], device: torch.device
    ) -> None:
        self.peak = recipe.train.learning_rate
        self.schedule = make_schedule(recipe)
        self.parts = [
            (a, a.factory.make(a.infos, lr=a.lr, device=device)) for a in assign(recipe, infos)
        ]
        self.names: dict[torch.Tensor, str] = {info.parameter: info.name for info in infos}
        self.by_name = {info.name: info.parameter for info in infos}

    def step(self, step: int) -> float:
        """Step all at learning rates of `step`; returns the schedule's rate."""
        rate = self.schedule(step)
        for assignment, optimizer in self.parts:
            scaled = rate if assignment.lr == self.peak else rate * (assignment.lr / self.peak)
            for group in optimizer.param_groups:
                group["lr"] = scaled
            assignment.factory.before_step(optimizer, step)
            optimizer.step()
        return rate

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for _, optimizer in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of all optimizers as `number/parameter name/state name` -> tensor."""
        return {path: value for path, value in self._states() if isinstance(value, torch.Tensor)}

    def numbers(self) -> dict[str, Any]:
        """What is not a tensor: plain values of the state, and those of each parameter group.

        Raises StrawberryError if an optimizer keeps something that can't be saved.
        """
        plain = {path: v for path, v in self._states() if not isinstance(v, torch.Tensor)}
        for path, value in plain.items():
            if not isinstance(value, PLAIN):
                kind = type(value).__name__
                raise StrawberryError(f"optimizer state {path} is a {kind}, which can't be saved")
        groups = [
            [
                {k: v for k, v in group.items() if isinstance(v, PLAIN) and k not in MACHINERY}
                for group in made.param_groups
            ]
            for _, made in self.parts
        ]
        return {"state": plain, "groups": groups}

    def _states(self) -> Iterator[tuple[str, Any]]:
        for number, (_, optimizer) in enumerate(self.parts):
            for parameter, state in optimizer.state.items():
                if parameter not in self.names or not isinstance(state, dict):
                    raise StrawberryError(
                        f"state {parameter!r} of {type(optimizer).__name__} belongs to no "
                        "parameter, and so can't be saved"
                    )
                for key, value in state.items():
                    yield f"{number}/{self.names[parameter]}/{key}", value

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put back what `tensors` gave; raises ValueError if it is another set of parameters."""
        for path, tensor in tensors.items():
            optimizer, parameter, key = self._place(path)
            # A step counter stays where torch wants it; all else follows its parameter.
            counter = tensor.ndim == 0 and (key == "step" or parameter.ndim > 0)
            stays = counter and not optimizer.defaults.get("fused")
            state = optimizer.state[parameter]
            state[key] = tensor.clone() if stays else tensor.to(parameter.device)

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        """Put back what `numbers` gave; raises as `load_tensors` does."""
        for path, value in numbers["state"].items():
            optimizer, parameter, key = self._place(path)
            optimizer.state[parameter][key] = value
        for (_, made), groups in zip(self.parts, numbers["groups"], strict=True):
            for group, values in zip(made.param_groups, groups, strict=True):
                group.update(values)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it, the parameters have the values to evaluate and to save."""
        with contextlib.ExitStack() as stack:
            for assignment, optimizer in self.parts:
                stack.enter_context(assignment.factory.evaluating(optimizer))
            yield

    def loaded(self) -> None:
        """Put back the values to train on; for when parameters, tensors and numbers are loaded."""
        for assignment, optimizer in self.parts:
            assignment.factory.loaded(optimizer)

    def _place(self, path: str) -> tuple[torch.optim.Optimizer, torch.nn.Parameter, str]:
        """The optimizer, parameter and state name of a path."""
        number, rest = path.split("/", 1)
        name, key = rest.rsplit("/", 1)
        if int(number) >= len(self.parts) or name not in self.by_name:
            raise ValueError(f"optimizer state for {path}, which this recipe does not have")
        return self.parts[int(number)][1], self.by_name[name], key


def make_schedule(recipe: Recipe) -> Schedule:
    """The recipe's schedule."""
    train = recipe.train
    site = ScheduleSite(
        learning_rate=train.learning_rate,
        min_lr=train.min_lr,
        warmup_iters=train.warmup_iters,
        lr_decay_iters=train.lr_decay_iters or train.max_iters,
        cooldown_frac=train.cooldown_frac,
        max_iters=train.max_iters,
    )
    made: Schedule = recipe.schedule.construct(site)
    return made
