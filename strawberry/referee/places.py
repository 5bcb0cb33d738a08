"""In which component of a model a forbidden dependence begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from strawberry.contracts import Component, Join, Positional, Residual
from strawberry.referee.dependence import NOISE, Limits, Run, difference, outputs

METHODS: Final[Mapping[type, tuple[str, ...]]] = {
    Join: ("read",),
    Positional: ("embed", "rotate"),
    Residual: ("begin", "end"),
}
"""What is called of components beside `forward`."""
FINER: Final = 1 / 16
"""Share of the usual rounding by which a component is named that is not Strawberry's."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a component.

    Attributes:
        path: of the component in the model.
        given: the tensors that it was given.
        result: the tensors that it returned.
    """

    path: str
    given: tuple[Tensor, ...]
    result: tuple[Tensor, ...]


def first_difference(model: nn.Module, run: Run, limits: Limits) -> str:
    """The path and class of the component in which outputs begin to differ where they must not.

    Components return in the order of the pass, inner ones first. One whose inputs differ already is
    not to blame: a block that gives its parts another order of tokens returns after them. Empty if
    no component shows it: the tokens of a routed recursion have other places than those of
    `limits`. A small leak may exceed rounding only after a norm of Strawberry's; a component that
    is not Strawberry's and differs a little before it is named instead.
    """
    first_ids, *between, last_ids = limits.passes
    with recorded(model) as before:
        outputs(run, first_ids)
    for ids in between:
        outputs(run, ids)
    with recorded(model) as after:
        outputs(run, last_ids)
    calls = list(zip(before, after, strict=False))
    path = _begins(calls, limits, 1.0)
    if path is not None and _is_own(model.get_submodule(path)):
        finer = _begins(calls, limits, FINER)
        if finer is not None and not _is_own(model.get_submodule(finer)):
            path = finer
    return "" if path is None else named(path, model.get_submodule(path))


def _begins(calls: Sequence[tuple[Call, Call]], limits: Limits, share: float) -> str | None:
    """The path of the first component whose results differ by that share of rounding or more."""
    moved: str | None = None
    for one, other in calls:
        if one.path != other.path or len(one.result) != len(other.result):
            break
        if not _differ(limits, one.result, other.result, share):
            continue
        if not _differ(limits, one.given, other.given, share):
            return one.path
        moved = moved or one.path
    return moved


def _is_own(module: nn.Module) -> bool:
    """Whether a component is one of Strawberry's."""
    return type(module).__module__.partition(".")[0] == "strawberry"


def named(path: str, module: nn.Module) -> str:
    """A place in words: a module's path and class."""
    return f"{path} ({type(module).__name__})"


def suspects(model: nn.Module) -> str:
    """The path and class of the first component that is not Strawberry's; empty without any.

    The place of what no outputs show, such as a lower loss.
    """
    for path, module in model.named_modules():
        if isinstance(module, Component) and not _is_own(module):
            return named(path, module)
    return ""


def _differ(
    limits: Limits, first: tuple[Tensor, ...], second: tuple[Tensor, ...], share: float
) -> bool:
    """Return whether any of these tensors differ where they have to be the same."""
    rows, length = limits.same.shape
    for one, other in zip(first, second, strict=False):
        if one.shape != other.shape:
            continue
        if one.ndim == 2 and len(one) == length != rows:  # of positions, the same for all rows
            one, other = (y.expand(rows, *y.shape) for y in (one, other))  # noqa: PLW2901
        if one.shape[:2] != (rows, length):
            continue
        if difference(limits, one, other, share * NOISE[one.dtype]) is not None:
            return True
    return False


@contextlib.contextmanager
def recorded(model: nn.Module) -> Iterator[list[Call]]:
    """Record each component's inputs and results in the passes inside, with its path, in order."""
    kept: list[Call] = []

    def keep(path: str, given: Any, result: Any) -> None:
        kept.append(Call(path, tuple(_tensors(given)), tuple(_tensors(result))))

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, given, result: keep(path, given, result)

    with contextlib.ExitStack() as stack:
        for path, module in model.named_modules():
            if isinstance(module, Component):
                stack.callback(module.register_forward_hook(hook(path)).remove)
            for name in _methods(module):
                stack.enter_context(_watched(module, name, path, keep))
        yield kept


def _methods(module: nn.Module) -> tuple[str, ...]:
    return next((names for cls, names in METHODS.items() if isinstance(module, cls)), ())


@contextlib.contextmanager
def _watched(
    module: nn.Module, name: str, path: str, keep: Callable[[str, Any, Any], None]
) -> Iterator[None]:
    """Within it calls of a method are kept."""
    own, called = vars(module).get(name), getattr(module, name)

    def watched(*given: Any) -> Any:
        result = called(*given)
        keep(path, given, result)
        return result

    vars(module)[name] = watched
    try:
        yield
    finally:
        if vars(module).get(name) is watched:
            del vars(module)[name]
            if own is not None:
                vars(module)[name] = own


def _tensors(value: Any) -> Iterator[Tensor]:
    """Copies of all tensors of features in a value; (B, H, T, D) as (B, T, H, D)."""
    if isinstance(value, Tensor):
        if value.ndim >= 2 and value.is_floating_point():
            copy = value.detach().clone()
            yield copy.transpose(1, 2) if copy.ndim == 4 else copy
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        for part in value:
            yield from _tensors(part)
