"""Retained weights: those of a recursion step are derived from the previous step's.

The rules are the original project's. Its operands came from the input, which leaked later tokens
and other sequences. Here they are learned, so weights don't depend on the input: R different sets
of matrices from the parameters of one or two. `retention.py` has the equations.

Theta, the weights of step 0, is each block's own, and so is Psi, the first transform of the rules
that swap. M and V belong to the source, one of each for every row length. Step 0 uses Theta
unchanged, except for `oa`, which normalises all matrices it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from strawberry.components.weights.kept import ParameterCache, may_keep
from strawberry.components.weights.retention import (
    MIXES,
    SWAPS,
    Rule,
    Update,
    rows,
    side_of,
)
from strawberry.contracts import (
    Bank,
    Component,
    ProjectionRequest,
    SourcedWeight,
    Use,
    WeightSite,
    WeightSource,
    drawn,
    wide,
    without_autocast,
)
from strawberry.errors import FieldError


class RetainedMatrix(Component):
    """The parameters of one matrix, or of one stack (E, out, in).

    Attributes:
        weight: Theta.
        transform: Psi with full rank; else it is `left @ right^T`.
        gain: g.
        tau: the scale of the rule `mlp`, one for each matrix.
        block: its block.
        name: its name in the block.
        number: its index among the parts of the source.
    """

    def __init__(
        self,
        request: ProjectionRequest,
        source: RetainedWeights,
        number: int,
    ) -> None:
        super().__init__()
        self.block, self.name, self.number = request.block, request.name, number
        shape, stack = request.shape, request.stack
        self.fan_in = request.in_features
        self.side = side_of(request.in_features, source.n_embd)

        self.parameter_parts = dict.fromkeys(("weight", "transform", "left"), request.parts)
        uniform = request.uniform
        self.weight = drawn(*shape, std=request.std, uniform=uniform)
        self.transform: nn.Parameter | None = None
        self.left: nn.Parameter | None = None
        self.right: nn.Parameter | None = None
        self.gain: nn.Parameter | None = None
        self.tau: nn.Parameter | None = None
        if not source.recurs:
            return
        if source.rule in SWAPS and source.rank is None:
            self.transform = drawn(*shape, std=request.std, uniform=uniform)
        elif source.rule in SWAPS and source.rank is not None:
            rank = source.rank
            self.left = drawn(*shape[:-1], rank, std=request.std, uniform=uniform)
            self.right = drawn(*stack, shape[-1], rank, std=rank**-0.5, uniform=uniform)
        if source.gain == "learned":
            self.gain = nn.Parameter(torch.ones(1))
        if source.rule == "mlp":
            self.tau = nn.Parameter(torch.ones(stack or (1,)))

    def update(self, source: RetainedWeights) -> Update:
        """The rule with its operands, in float32 at least."""
        squares = {name: wide(matrix) for name, matrix in source.mixes(self.side)}
        return Update(
            source.rule,
            self.fan_in,
            rms=source.gain == "rms",
            gain=None if self.gain is None else wide(self.gain),
            tau=None if self.tau is None else wide(self.tau).view(*self.weight.shape[:-2], 1, 1),
            mix=squares.get("mix"),
            back=squares.get("back"),
        )

    def first_transform(self) -> Tensor | None:
        """Psi in rows, or None."""
        if self.left is not None and self.right is not None:
            return rows(self.left @ self.right.mT, self.side)
        return None if self.transform is None else rows(self.transform, self.side)


class RetainedWeights(WeightSource):
    """`W_{r+1}` from `W_r` by an update rule; opened at the `recur` whose steps use the weights.

    All matrices are computed once in a pass. Without gradients they are cached until a parameter
    changes, so generation has dense matrices; checkpoints don't contain them. Steps beyond the
    trained ones continue the recurrence.

    With many columns C, `T * silu(W)` is about C^-0.5 / 2 of W, so steps differ little at the
    start. A gain, or operands of root mean square 1, increases the difference.

    Args:
        rule: `swap`: Hadamard product with the previous step's weights; `oa`: with the weights
            times a learned matrix; `bilinear`: the product is also multiplied by `W^T T`; `mlp`: a
            network of the weights' rows is added.
        rank: rank of Psi; null for full rank. Only for the rules that swap.
        gain: `learned`: a factor, 1 at the start, on the update of the weights; `rms`: the weights
            and the transform enter the rule with rows of root mean square 1; `none`.
    """

    def __init__(
        self,
        site: WeightSite,
        *,
        rule: Rule = "swap",
        rank: Annotated[int, Ge(1)] | None = None,
        gain: Literal["learned", "rms", "none"] = "learned",
    ) -> None:
        super().__init__()
        if site.level is None:
            raise ValueError("it needs recursion steps; open this weight source at a `recur`")
        if rank is not None and rule not in SWAPS:
            raise FieldError("rank", f"the rule {rule!r} has no learned transform")
        self.site = replace(site, make_component=None)  # a copy that can be pickled
        self.n_embd = site.n_embd
        self.rule: Rule = rule
        self.rank = rank
        self.gain = gain
        self.recurs = site.steps > 1
        self.squares = nn.ParameterDict()
        self.parts: list[RetainedMatrix] = []  # a list: they are modules of their blocks
        self.kept: dict[int, ParameterCache] = {}

    def declare(self, weight: SourcedWeight, request: ProjectionRequest) -> None:
        """A matrix that changes from step to step, or a stack; a bias is the same at every step."""
        if request.out_features * request.in_features < 2:
            raise ValueError(f"retained weights need a nonzero deviation; {request.name} is 1 x 1")
        if request.std == 0 and self.recurs:
            raise ValueError(
                f"retained weights need a nonzero deviation; {request.name} starts at zero"
            )
        if request.multiplier != 1 and self.recurs:
            raise ValueError(
                "retained weights have a size of their own, so no parametrization that multiplies "
                f"{request.name} can hold"
            )
        part = weight.part = RetainedMatrix(request, self, len(self.parts))
        self.parts.append(part)
        weight.add_bias()
        for name in MIXES[self.rule] if self.recurs else ():
            if f"{name}_{part.side}" not in self.squares:
                side, std = part.side, part.side**-0.5
                square = drawn(side, side, std=std, uniform=request.uniform)
                self.squares[f"{name}_{side}"] = square

    def matrix(self, weight: SourcedWeight, use: Use) -> Tensor:
        """The matrix, or the stack, of this use's step."""
        return self.at(weight.part, use)

    def expert_parameters(self, bank: Bank) -> list[Tensor]:
        """All parameters of the stack but the gain, which its matrices share."""
        return [p for p in bank.part.parameters() if p is not bank.part.gain]

    def mixes(self, side: int) -> list[tuple[str, Tensor]]:
        """M and V for rows of that length, if the rule has them."""
        names = MIXES[self.rule] if self.recurs else ()
        return [(name, self.squares[f"{name}_{side}"]) for name in names]

    def at(self, part: RetainedMatrix, use: Use) -> Tensor:
        """The part's matrix, or stack, at this use's step."""
        step = self.site.step(use) if self.recurs else 0
        parameters = [*part.parameters(), *(square for _, square in self.mixes(part.side))]
        if may_keep(parameters):
            kept = self.kept.get(part.number)
            if kept is None or not kept.fits(parameters):
                kept = self.kept[part.number] = ParameterCache(parameters)
            values, carried = kept.values, kept.carried
        else:
            key = ("retained", part.block, part.number)
            values = use.once.setdefault((*key, "used"), [])
            carried = use.once.setdefault((*key, "carried"), [])
        if len(values) <= step:
            self._extend(part, values, carried, step)
        return values[step]

    def prepare(self, use: Use) -> None:
        """Compute the matrices of all parts up to this use's step."""
        for part in self.parts:
            self.at(part, use)

    @torch.no_grad()
    def dense(self, steps: int | None = None) -> dict[int, dict[str, list[Tensor]]]:
        """The matrices of every block, by name: one for each of `steps`, as in training."""
        count = steps or self.site.steps
        weights: dict[int, dict[str, list[Tensor]]] = {}
        for part in self.parts:
            values: list[Tensor] = []
            self._extend(part, values, [], count - 1 if self.recurs else 0)
            values *= 1 if self.recurs else count
            weights.setdefault(part.block, {})[part.name] = [value.clone() for value in values]
        return weights

    def after_step(self) -> None:
        """Clear the cache: the parameters have changed."""
        self.kept.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RetainedWeights:
        """Clear the cache when parameters move to another device or dtype."""
        self.kept.clear()
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """A copy starts with an empty cache."""
        return {**self.__dict__, "kept": {}}

    def _extend(
        self, part: RetainedMatrix, values: list[Tensor], carried: list[Tensor], step: int
    ) -> None:
        """Extend up to `step` the matrices in use, and the last of the carried ones."""
        with without_autocast(part.weight.device):
            self._continue(part, values, carried, step)

    def _continue(
        self, part: RetainedMatrix, values: list[Tensor], carried: list[Tensor], step: int
    ) -> None:
        update = part.update(self)
        shape, dtype = part.weight.shape, part.weight.dtype
        while len(values) <= step:
            if not values:
                carried.append(rows(part.weight, part.side))
            else:
                before = carried[-2] if len(carried) > 1 else part.first_transform()
                carried.append(update(carried[-1], before))
            if len(carried) > 2:  # nothing looks further back
                carried.pop(0)
            values.append(update.used(carried[-1]).reshape(shape).to(dtype))
