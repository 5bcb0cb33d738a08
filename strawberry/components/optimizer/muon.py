"""Muon: momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024).

The steps are those of torch.optim.Muon on every single matrix. That class takes no stacks and no
fused matrices. It iterates in bfloat16 on a CPU too, which is many times slower than float32
without hardware support.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from strawberry.contracts import (
    Beta,
    MatrixLayout,
    OptimizerSite,
    OptimizerSource,
    ParameterInfo,
    Unit,
    full_tensor,
    is_sharded,
    shard_like,
    to_local,
)
from strawberry.plugin import Kind
from strawberry.recipe.spec import ComponentSpec

_T = TypeVar("_T", bound=Tensor)
Coefficients: TypeAlias = tuple[float, float, float]


class Muon(OptimizerSource):
    """Takes hidden matrices and stacks of them; embeddings, heads and vectors go to `rest`.

    `m <- mu m + (1 - mu) g`, `w <- (1 - lr decay) w - lr c U V^T`, with U and V the singular
    vectors of m, and c by the matrix's shape.

    Each matrix is orthogonalised separately: q, k and v, or a gate and its up-projection, although
    they are one tensor in the model, and every expert of a stack.

    Args:
        lr: peak learning rate. With `adjust_lr: original` it is the spectral norm of a square
            matrix's step, so a good one depends little on the width. null takes
            `train.learning_rate`, which fits `match_rms_adamw`.
        momentum: fraction of the old momentum that is kept.
        momentum_warmup: steps in which the momentum rises from 0.85 to `momentum`; 0 for none.
        nesterov: look one step ahead along the momentum.
        ns_steps: Newton-Schulz iterations.
        weight_decay: parameters shrink by this fraction of the learning rate in each step.
        heads: orthogonalise the rows of each attention head separately, if a matrix has heads among
            its rows; `adjust_lr` then uses their shape.
        adjust_lr: `original` scales the rate of an (m, n) matrix by sqrt(max(1, m / n));
            `match_rms_adamw` by 0.2 sqrt(max(m, n)), so that rates of AdamW fit.
        rest: the optimizer of everything else.
    """

    shards = True
    needs_whole = True

    def __init__(
        self,
        site: OptimizerSite,
        *,
        lr: Annotated[float, Gt(0)] | None = 0.02,
        momentum: Beta = 0.95,
        momentum_warmup: Annotated[int, Ge(0)] = 0,
        nesterov: bool = True,
        ns_steps: Annotated[int, Ge(1)] = 5,
        weight_decay: Annotated[float, Ge(0)] = 0.1,
        heads: bool = False,
        adjust_lr: Literal["original", "match_rms_adamw"] = "original",
        rest: Annotated[ComponentSpec, Kind("optimizer")] = "strawberry/adamw",  # type: ignore[assignment]
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.momentum_warmup = momentum_warmup
        self.nesterov = nesterov
        self.ns_steps = ns_steps
        self.weight_decay = weight_decay
        self.unit = "head" if heads else "matrix"
        self.adjust_lr = adjust_lr
        self.update = "orthogonal" if adjust_lr == "original" else "orthogonal_rms"
        self.rest = rest

    def claims(self, info: ParameterInfo) -> bool:
        """Hidden matrices and stacks of them."""
        return info.kind in ("matrix", "bank")

    def make(
        self,
        infos: Sequence[ParameterInfo],
        *,
        lr: float,
        device: torch.device,
    ) -> torch.optim.Optimizer:
        """Return `Orthogonal(...)`."""
        defaults = {
            "lr": lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "ns_steps": self.ns_steps,
            "weight_decay": self.weight_decay,
            "adjust_lr": self.adjust_lr,
        }
        layouts = {info.parameter: info.layout for info in infos}
        return OrthogonalMomentum(layouts, self.unit, defaults)

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the momentum of this step, a pure function of it."""
        if self.momentum_warmup:
            done = min(step / self.momentum_warmup, 1.0)
            for group in optimizer.param_groups:
                group["momentum"] = (1 - done) * 0.85 + done * self.momentum


class OrthogonalMomentum(torch.optim.Optimizer):
    """Steps by the momentum's nearest orthogonal matrix, for every matrix (m, n) of the parameters.

    M <- mu M + (1 - mu) G; W <- (1 - lr decay) W - lr scale(m, n) orthogonal(U), where U is M, or
    mu M + (1 - mu) G with Nesterov momentum. Matrices of one shape are iterated together, across
    parameters.

    Args:
        layouts: the parameters, and the matrices in each.
        unit: split matrices with heads further.
        defaults: defaults of a parameter group.
    """

    def __init__(
        self, layouts: dict[nn.Parameter, MatrixLayout], unit: Unit, defaults: dict[str, Any]
    ) -> None:
        super().__init__(list(layouts), defaults)
        self.layouts = layouts
        self.unit: Unit = unit

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            for parameters in batches(with_gradient, TOGETHER):
                self._step(parameters, group)

    def _step(self, parameters: Sequence[nn.Parameter], group: dict[str, Any]) -> None:
        """Step these parameters; of sharded ones, at most one is gathered at a time."""
        pieces = []
        for parameter in parameters:
            momentum = self._momentum(parameter, group).to(precision(parameter.device))
            pieces.append(self.layouts[parameter].split(at_hand(momentum), self.unit))
        updates = self._updates(parameters, pieces, group)
        decay, scale = 1 - group["lr"] * group["weight_decay"], SCALES[group["adjust_lr"]]
        for parameter in parameters:
            mine = to_local(parameter)
            mine.mul_(decay)
            target = mine if in_whole_matrices(parameter) else mine.new_zeros(parameter.shape)
            for view in self.layouts[parameter].views(target):
                update = next(updates)
                rate = -group["lr"] * scale(*update.shape[-2:])
                view.add_(update.reshape(view.shape), alpha=rate)
            if target is not mine:
                mine.add_(to_local(shard_like(target, parameter)))

    def _updates(
        self, parameters: Sequence[nn.Parameter], pieces: list[list[Tensor]], group: dict[str, Any]
    ) -> Iterator[Tensor]:
        """The update of each stack of matrices in `pieces`, a row for each parameter."""
        del parameters
        return orthogonal_all(
            [each for row in pieces for each in row], [QUINTIC] * group["ns_steps"]
        )

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """U, after adding the gradient to the momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum


QUINTIC: Coefficients = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's iteration `a X + (b A + c A A) X`, with A = X X^T."""

TOGETHER = 1 << 24
"""Number of elements of parameters stepped at a time; the iteration needs several copies of them.
"""

CACHED = 1 << 14
"""Number of elements of small matrices that a CPU iterates at a time, to stay within its caches."""

SCALES: dict[str, Callable[[int, int], float]] = {
    "original": lambda m, n: math.sqrt(max(1, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}
"""Factor on the learning rate of an (m, n) matrix."""


def precision(device: torch.device) -> torch.dtype:
    """Dtype of the iteration: rounding does no harm, as singular values need only be near 1."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def in_whole_matrices(parameter: Tensor) -> bool:
    """Return whether this rank's part of a parameter has whole matrices: a shard of a stack."""
    return not is_sharded(parameter) or parameter.ndim == 3


def at_hand(momentum: Tensor) -> Tensor:
    """The matrices that this rank orthogonalises.

    For a sharded stack they are its own. Every rank gathers and computes a single matrix, so
    nothing has to be sent back.
    """
    return (
        to_local(momentum) if in_whole_matrices(momentum) else full_tensor(momentum)
    ).contiguous()


def batches(tensors: Sequence[_T], limit: int) -> Iterator[list[_T]]:
    """The tensors in groups of at most `limit` elements, or of one tensor."""
    run: list[_T] = []
    held = 0
    for tensor in tensors:
        if run and held + tensor.numel() > limit:
            yield run
            run, held = [], 0
        run.append(tensor)
        held += tensor.numel()
    if run:
        yield run


def orthogonal_all(
    stacks: Sequence[Tensor], polynomials: Sequence[Coefficients]
) -> Iterator[Tensor]:
    """`orthogonal` of each stack (N, m, n), with those of one shape, or its transpose, together."""
    alike: dict[tuple[int, ...], list[Tensor]] = {}
    for stack in stacks:
        alike.setdefault(_shape(stack), []).append(stack.mT if _tall(stack) else stack)
    updates = {shape: _in_runs(group, polynomials) for shape, group in alike.items()}
    for stack in stacks:
        result = next(updates[_shape(stack)])
        yield result.mT if _tall(stack) else result


def _in_runs(stacks: Sequence[Tensor], polynomials: Sequence[Coefficients]) -> Iterator[Tensor]:
    """Wide stacks of one shape, in batches that suit the device."""
    limit = CACHED if stacks[0].device.type == "cpu" else TOGETHER
    for run in batches(stacks, limit):
        if len(run) == 1:
            yield orthogonal(run[0], polynomials)
        else:
            together = orthogonal(torch.cat(run), polynomials)
            yield from torch.split(together, [len(each) for each in run])


def _shape(stack: Tensor) -> tuple[int, ...]:
    return tuple(sorted(stack.shape[1:]))


def _tall(stack: Tensor) -> bool:
    return stack.shape[1] > stack.shape[2]


def orthogonal(X: Tensor, polynomials: Sequence[Coefficients]) -> Tensor:
    """Each of the matrices (N, m, n), m <= n, with singular values near 1, by odd polynomials."""
    if not len(X):  # a rank that has none of a stack
        return X
    single = len(X) == 1
    X = X[0] if single else X
    add = torch.addmm if single else torch.baddbmm
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for a, b, c in polynomials:
        A = X @ X.mT
        B = add(A, A, A, beta=b, alpha=c)
        X = add(X, B, X, beta=a)
    return X[None] if single else X
