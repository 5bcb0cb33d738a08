"""The contracts between the stack and its components: what an author of one has to know.

Shapes: B batch, T tokens, C model width (`n_embd`), V vocabulary, H heads, D width of a head.

A component's keyword-only parameters are its recipe fields; what comes before them is handed over
by the builder. What belongs to one *use* of a module (its cache, the positions, the recursion
step) arrives in a `Use`, never as an attribute: a shared module is used many times in one pass.

A module with a method `after_step()` has it called after each optimizer step, once however often
the module is used: the place for what is learned by other means than gradients.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

Place: TypeAlias = Literal["embedding", "rotary", "bias"]
State: TypeAlias = dict[str, Tensor]


class Term(NamedTuple):
    """A value that travels up from a component beside its output.

    With `weight` > 0 it is an auxiliary loss, added to the training loss as the mean of
    `weight * value` over the terms of that name; with weight 0 it is a metric, only logged.
    """

    name: str
    value: Tensor
    weight: float = 0.0


Aux: TypeAlias = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a component in one pass.

    Attributes:
        positions: absolute position of each token, (T,) int64.
        offset: how many tokens the cache holds already; 0 without a cache.
        steps: the recursion steps that enclose this use, outermost first.
        state: what this unrolled position keeps between calls, or None without a cache.
        positional: the positional component in force here.
        weights: the weight source in force here.
        memo: values computed once in a pass and needed by several blocks.
        cache: the states of all unrolled positions; a block takes its own from it.
        tokens: the token ids themselves, (B, T) int64.
        documents: the number of the document that each token belongs to, (B, T), where tokens are
            to see their own document alone; else None. Never set with a cache.
    """

    positions: Tensor
    offset: int
    positional: Positional
    weights: Weights
    steps: tuple[int, ...] = ()
    state: State | None = None
    memo: dict[Any, Any] = field(default_factory=dict)
    cache: Sequence[State] | None = None
    tokens: Tensor | None = None
    documents: Tensor | None = None

    def rotate(self, x_BHTD: Tensor) -> Tensor:
        """Rotate queries or keys by their positions, where the positional component rotates."""
        if "rotary" not in self.positional.places:
            return x_BHTD
        return self.positional.rotate(x_BHTD, self)

    def bias(self, n_head: int, n_keys: int) -> Tensor | None:
        """Additive scores (H, T, n_keys) for these queries, or None.

        The keys are the last `n_keys` positions up to that of the last query.
        """
        if "bias" not in self.positional.places:
            return None
        first = self.offset + len(self.positions) - n_keys
        keys = torch.arange(first, first + n_keys, device=self.positions.device)
        return self.positional.bias(n_head, self.positions, keys)

    def at(self, step: int) -> Use:
        """The same use, one recursion deeper, at `step` (from 0)."""
        return replace(self, steps=(*self.steps, step))


class Projection(nn.Module, abc.ABC):
    """A matrix (out_features, in_features) that some weight source answers for."""

    in_features: int
    out_features: int

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""

    @abc.abstractmethod
    def matrix(self, use: Use) -> Tensor:
        """The matrix of this use, dense: (out_features, in_features)."""


class Bank(nn.Module, abc.ABC):
    """A stack of E matrices (out_features, in_features), one for each expert, without biases."""

    experts: int
    in_features: int
    out_features: int

    @abc.abstractmethod
    def matrices(self, use: Use) -> Tensor:
        """The matrices of this use: (E, out_features, in_features)."""


@dataclass(frozen=True, slots=True)
class ProjectionRequest:
    """What a component asks of its weight source.

    Attributes:
        block: which block asks; numbered over the model in the order in which blocks are built.
        name: the component's kind and its own name for the matrix, such as `attention.qkv`.
        out_features: rows.
        in_features: columns.
        bias: whether an additive bias comes with it.
        std: standard deviation at the start.
        uniform: uniform (of that deviation) rather than normal.
    """

    block: int
    name: str
    out_features: int
    in_features: int
    bias: bool
    std: float
    uniform: bool


@dataclass(frozen=True, slots=True)
class WeightScope:
    """Where a weight source is opened.

    Attributes:
        n_embd: model width C.
        steps: recursion steps of the innermost `recur` at or around that place; 1 without one.
        level: which of `use.steps` is the step of that `recur`; None without one.
    """

    n_embd: int
    steps: int = 1
    level: int | None = None

    def step(self, use: Use) -> int:
        """The recursion step of a use, from 0; may be beyond `steps` if asked for more depth."""
        return 0 if self.level is None else use.steps[self.level]


class Weights(nn.Module, abc.ABC):
    """A weight source: how the matrices of the blocks in its scope come to be.

    Constructed with `(scope, *, fields)`. Parameters that blocks share live on the source, which
    is a module of the scope that opened it; at run time it arrives as `use.weights`. What it
    computes once for a whole pass it may keep in `use.memo`.
    """

    same_cost: ClassVar[bool] = True
    """Whether every use costs the same, so that equal blocks need to be counted only once."""

    @abc.abstractmethod
    def projection(self, request: ProjectionRequest) -> Projection:
        """The projection for `request`; raises FieldError or ValueError if it can't be had."""

    def bank(self, request: ProjectionRequest, experts: int) -> Bank:
        """As many matrices as `experts`, each as in `request`; raises ValueError as above."""
        raise ValueError(f"{type(self).__name__} weights have no stacks of matrices for experts")

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """What each use of a block keeps for this source between cached calls.

        It is in `use.state` beside the mixer's own, so names begin with `weights.`; batch first.
        """
        return {}


class Positional(nn.Module, abc.ABC):
    """Where order comes from. Constructed with `(n_embd, block_size, *, fields)`.

    `places` says which of the three methods it has; the others are never called.
    """

    places: ClassVar[frozenset[Place]] = frozenset()

    def embed(self, positions: Tensor) -> Tensor:
        """(T,) positions -> (T, C), added to the token embeddings."""
        raise NotImplementedError

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        """Queries or keys (B, H, T, D), rotated by `use.positions`."""
        raise NotImplementedError

    def bias(self, n_head: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(H, Tq, Tk) added to the scores; `queries` and `keys` are positions."""
        raise NotImplementedError

    def limit(self) -> int | None:
        """The longest sequence that it can place, or None if there is no limit."""
        return None


class Attention(nn.Module, abc.ABC):
    """A token mixer (B, T, C) -> (B, T, C). Constructed with `(site, *, fields)`.

    The block around it normalises its input and adds its output to the residual stream. A cached
    call gives, for any split of a sequence into calls, what one call without a cache gives.

    Attributes:
        causal: whether no output depends on a later token.
        batch_independent: whether no output depends on another sequence of the batch.
        cacheable: whether it has a decoding state.
        honours: the places of a positional component that it reads.
        separates: whether it keeps documents apart, by `use.documents`.
    """

    causal: ClassVar[bool] = True
    batch_independent: ClassVar[bool] = True
    cacheable: ClassVar[bool] = True
    honours: ClassVar[frozenset[Place]] = frozenset()
    separates: ClassVar[bool] = False

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """Mix; with `use.state`, continue after `use.offset` tokens and update the state."""

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Named tensors kept between cached calls, for up to `length` tokens."""
        raise NotImplementedError


class FFN(nn.Module, abc.ABC):
    """A position-wise network (B, T, C) -> (B, T, C). Constructed with `(site, *, fields)`."""

    causal: ClassVar[bool] = True
    batch_independent: ClassVar[bool] = True

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """Transform each token by itself."""


class Norm(nn.Module, abc.ABC):
    """A normalisation over the last dimension. Constructed with `(features, *, fields)`."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., features)."""


@dataclass(frozen=True, slots=True)
class Site:
    """The place where a component is being built.

    Attributes:
        n_embd: model width C.
        vocab_size: number of token ids V.
        block_size: longest training sequence.
        dropout: the recipe's dropout probability; the block drops residual outputs itself.
        bias: whether the recipe wants additive biases.
        depth: unrolled depth of the whole model, in blocks.
        projection: `projection(name, out_features, in_features, *, output=False)` gives the
            matrix of that name from the weight source; `output` marks one that writes to the
            residual stream.
        bank: `bank(name, experts, out_features, in_features, *, output=False)` gives a stack of
            such matrices, one for each expert.
        norm: `norm(features)` gives the recipe's normalisation, such as for QK-norm.
        component: builds a nested component (a field declared with `ComponentOf(kind)`).
        positional: the positional component in force here.
    """

    n_embd: int
    vocab_size: int
    block_size: int
    dropout: float
    bias: bool
    depth: int
    projection: Callable[..., Projection]
    bank: Callable[..., Bank]
    norm: Callable[[int], nn.Module]
    component: Callable[[Any], Any]
    positional: Positional


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter and what it is.

    `kind` is `embedding` (token and position tables, an untied head), `matrix` (2-D hidden),
    `bank` (3-D stacks of matrices), `vector` (gains, biases, scalars), or what its module says in
    a class attribute `parameter_kinds = {"attribute": "kind"}`, such as `router`.
    """

    name: str
    parameter: nn.Parameter
    kind: str


class Optimizer(abc.ABC):
    """A factory of a torch optimizer over some of the parameters. Constructed with `(*, fields)`.

    `lr` is its peak learning rate (None: the recipe's `train.learning_rate`); the schedule scales
    all optimizers together. `rest`, where it is not None, is the optimizer (a spec, as in the
    recipe) that takes what this one does not claim.
    """

    lr: float | None = None
    rest: Any = None

    def claims(self, info: ParameterInfo) -> bool:
        """Whether it can optimise that parameter."""
        return True

    @abc.abstractmethod
    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The torch optimizer over `infos`, with peak learning rate `lr`."""

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:  # noqa: B027
        """Set what depends on the step (from 0) alone, such as a momentum warm-up."""

    def evaluating(self, optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
        """Within it, parameters have the values to evaluate and to save, such as an average.

        At its end they have, bit for bit, those to train on. A checkpoint is written within it, so
        the optimizer's state must then hold what `loaded` needs.
        """
        return contextlib.nullcontext()

    def loaded(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027
        """Put back the values to train on, once parameters and state come from a checkpoint."""


@dataclass(frozen=True, slots=True)
class ScheduleSite:
    """What a schedule is told of the run; the fields are those of the recipe's `train` section."""

    learning_rate: float
    min_lr: float
    warmup_iters: int
    lr_decay_iters: int
    cooldown_frac: float
    max_iters: int


class Schedule(abc.ABC):
    """A learning rate as a pure function of the step. Constructed with `(site, *, fields)`."""

    @abc.abstractmethod
    def __call__(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""


class Tracker:
    """An observer of one run, named in the recipe's `trackers`. Constructed with `(*, fields)`.

    Every method does nothing unless overridden.
    """

    def model_built(self, model: nn.Module, recipe: Any) -> None:
        """Before the first step."""

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """After a logged step."""

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation."""

    def checkpoint_saved(self, run: Path, step: int, path: Path) -> None:
        """After a checkpoint is whole on disk."""

    def run_finished(self, run: Path, status: str) -> None:
        """At the end; `status` is `finished`, `interrupted` or `failed`."""


def with_aux(result: Tensor | tuple[Tensor, Aux]) -> tuple[Tensor, Aux]:
    """A component's result as (output, terms), whichever of the two forms it returned."""
    return (result, ()) if isinstance(result, Tensor) else result


def mean_terms(terms: Iterable[Term]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Per name: the mean of the values, and that of `weight * value`, None if no weight is set."""
    grouped: dict[str, list[Term]] = {}
    for term in terms:
        grouped.setdefault(term.name, []).append(term)
    return {
        name: (
            torch.stack([t.value for t in group]).mean(),
            torch.stack([t.weight * t.value for t in group]).mean()
            if any(t.weight for t in group)
            else None,
        )
        for name, group in grouped.items()
    }


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or as it is if wider: for statistics that half precision would spoil."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def draw(tensor: Tensor, std: float, *, uniform: bool) -> None:
    """Fill a tensor at random with mean 0 and this deviation; on the meta device, do nothing."""
    if tensor.is_meta:
        return
    if uniform:
        tensor.uniform_(-(3**0.5) * std, 3**0.5 * std)
    else:
        tensor.normal_(0.0, std)
