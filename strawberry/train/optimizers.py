"""Several optimizers over one model, driven as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch

from strawberry.errors import RecipeError
from strawberry.model.contracts import Optimizer, ParameterInfo, Schedule, ScheduleSite
from strawberry.recipe.spec import ComponentSpec

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe

PROBE = 64
"""Side of the small matrix with which an optimizer's state is measured."""


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
        message = f"no optimizer takes {left[0].name}" + (f" and {len(left) - 1} more" * (len(left) > 1))
        problems.append(recipe.optimizer[-1].component.problem("", message))
    if problems:
        raise RecipeError(problems)
    return found


def _take(
    spec: ComponentSpec, infos: Sequence[ParameterInfo], peak: float
) -> Iterator[Assignment]:
    """The assignment of one optimizer, and those of what it leaves to its `rest`."""
    factory: Optimizer = spec.entry.load()(**spec.fields)
    mine = tuple(info for info in infos if factory.claims(info))
    if mine:
        yield Assignment(spec, factory, factory.lr or peak, mine)
    others = [info for info in infos if not factory.claims(info)]
    if others and isinstance(factory.rest, ComponentSpec):
        yield from _take(factory.rest, others, peak)


def _matches(selector: str, info: ParameterInfo) -> bool:
    return selector == info.kind or fnmatchcase(info.name, selector)


def state_bytes(assignments: Sequence[Assignment]) -> int:
    """Bytes of optimizer state, measured by letting each optimizer step once on a small matrix."""
    total = 0.0
    for assignment in assignments:
        small = torch.nn.Parameter(torch.zeros(PROBE, PROBE))
        small.grad = torch.ones_like(small)
        info = ParameterInfo("probe", small, assignment.infos[0].kind)
        optimizer = assignment.factory.make([info], lr=1e-3, device=torch.device("cpu"))
        optimizer.step()
        per_number = sum(
            value.nbytes
            for value in optimizer.state[small].values()
            if isinstance(value, torch.Tensor) and value.numel() > 1
        ) / small.numel()
        total += per_number * sum(info.parameter.numel() for info in assignment.infos)
    return round(total)


class Optimizers:
    """All optimizers of a run, as one: stepped, zeroed, saved and loaded together."""

    def __init__(self, recipe: Recipe, infos: Sequence[ParameterInfo], device: torch.device) -> None:
        self.peak = recipe.train.learning_rate
        self.schedule = make_schedule(recipe)
        self.parts = [
            (a, a.factory.make(a.infos, lr=a.lr, device=device)) for a in assign(recipe, infos)
        ]
        self.names = {info.parameter: info.name for info in infos}

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
        """The state of all optimizers as `number/parameter name/state name` -> tensor."""
        found = {}
        for number, (_, optimizer) in enumerate(self.parts):
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    tensor = torch.as_tensor(value)
                    found[f"{number}/{self.names[parameter]}/{key}"] = tensor
        return found

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put back what `tensors` gave; raises ValueError if it is another set of parameters."""
        by_name = {name: parameter for parameter, name in self.names.items()}
        states: list[dict[torch.nn.Parameter, dict[str, Any]]] = [{} for _ in self.parts]
        for path, tensor in tensors.items():
            number, rest = path.split("/", 1)
            name, key = rest.rsplit("/", 1)
            if int(number) >= len(self.parts) or name not in by_name:
                raise ValueError(f"optimizer state for {path}, which this recipe does not have")
            states[int(number)].setdefault(by_name[name], {})[key] = tensor
        for (_, optimizer), state in zip(self.parts, states, strict=True):
            for parameter, values in state.items():
                target = optimizer.state[parameter]
                for key, tensor in values.items():
                    # A step counter stays where torch wants it; all else follows its parameter.
                    scalar = tensor.ndim == 0 and not optimizer.defaults.get("fused")
                    target[key] = tensor.clone() if scalar else tensor.to(parameter.device)


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
    made: Schedule = recipe.schedule.entry.load()(site, **recipe.schedule.fields)
    return made
