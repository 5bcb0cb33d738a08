"""In which component of a model a forbidden dependence begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

from strawberry.contracts import FFN, Attention, Norm, Positional, Router
from strawberry.referee.dependence import Limits, Run, difference, outputs

COMPONENTS = (Attention, FFN, Norm, Positional, Router)


def first_difference(model: nn.Module, run: Run, limits: Limits) -> str:
    """The path and class of the first component whose outputs differ where they must not.

    Components return in the order of the pass, inner ones first. What the first one was given had
    not differed yet, so the dependence is its own. Empty if no component shows it: the tokens of a
    routed recursion have other places than those of `limits`.
    """
    first_ids, *between, last_ids = limits.passes
    with recorded(model) as before:
        outputs(run, first_ids)
    for ids in between:
        outputs(run, ids)
    with recorded(model) as after:
        outputs(run, last_ids)
    for (path, first), (other, second) in zip(before, after, strict=False):
        if path != other or first.shape != second.shape:
            return ""
        if first.shape[:2] != limits.same.shape:
            continue
        if difference(limits, first, second) is not None:
            return f"{path} ({type(model.get_submodule(path)).__name__})"
    return ""


@contextlib.contextmanager
def recorded(model: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Record each component's results in the passes inside, with its path, in order."""
    kept: list[tuple[str, Tensor]] = []

    def hook(path: str) -> object:
        def keep(_: nn.Module, __: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor) and first.ndim >= 2 and first.is_floating_point():
                kept.append((path, first.detach().clone()))

        return keep

    with contextlib.ExitStack() as stack:
        for path, module in model.named_modules():
            if isinstance(module, COMPONENTS):
                stack.callback(module.register_forward_hook(hook(path)).remove)  # type: ignore[arg-type]
        yield kept
