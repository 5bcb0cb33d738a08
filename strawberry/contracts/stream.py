"""The residual stream and its blocks: what flows, how an output joins, which parts there are.

B batch, T tokens, C model width `n_embd`.

A stream is a tensor, or tuples and dicts of tensors, each (B, T, ...). It may be wider than
(B, T, C) and may hold what earlier blocks have written.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from torch import Tensor, nn

from strawberry.contracts.component import Component
from strawberry.contracts.sites import Site
from strawberry.contracts.terms import Aux, with_aux
from strawberry.contracts.use import Use

if TYPE_CHECKING:
    from strawberry.contracts.mixing import FFN, Attention

Stream: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class ResidualSite:
    """The place where the model's residual component is built.

    Attributes:
        n_embd: model width C.
        depth: unrolled depth of the model, in blocks.
    """

    n_embd: int
    depth: int


@dataclass(frozen=True, slots=True)
class JoinSite:
    """The place where a part's output joins the stream.

    Attributes:
        n_embd: model width C.
        depth: unrolled depth of the model, in blocks.
        block: which block it is in, from 0, in the order in which blocks are built.
        part: the part's name, such as `attention`.
        index: which part of its block, from 0.
        last: whether no part of the block comes after it.
        steps: recursion steps of each `recur` around it, outermost first.
        branch: factor of the parametrization on what joins.
        make_norm: makes the recipe's normalisation; `norm` calls it.
    """

    n_embd: int
    depth: int
    block: int
    part: str
    index: int
    last: bool
    steps: tuple[int, ...]
    make_norm: Callable[[str], nn.Module]
    branch: float = 1.0

    def norm(self, role: str) -> nn.Module:
        """The recipe's normalisation over C; call it by `normed(norm, x, use)`."""
        return self.make_norm(f"{self.part}.{role}")


class Join(Component, abc.ABC):
    """How one part reads the stream, and how its output joins it.

    Attributes:
        reads_normed: whether the block normalises what is read.
        scales_branch: whether the join multiplies the output by the site's `branch` itself. A join
            that normalises the output has to; for others the block multiplies it before.
    """

    reads_normed: bool = True
    scales_branch: bool = False

    @abc.abstractmethod
    def read(self, stream: Stream, use: Use) -> Tensor:
        """The part's input (B, T, C), before its normalisation."""

    @abc.abstractmethod
    def forward(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        """The stream after the part's output `y` (B, T, C) has joined."""


class Residual(Component, abc.ABC):
    """What the blocks read and write: the residual stream. Constructed with `(site, *, fields)`.

    The site is a `ResidualSite`. A residual that mixes earlier outputs:

        class Half(Residual):
            def join(self, site):
                return HalfJoin()

        class HalfJoin(Join):
            def read(self, stream, use):
                return stream

            def forward(self, stream, y, use):
                return (stream + y) / 2

    Attributes:
        routable: whether a block leaves the stream's tensors and their shapes as they were. A
            router needs that, since it sends some tokens through a block and merges the result.
    """

    def begin(self, x: Tensor, use: Use) -> Stream:
        """The stream before the first block, made from the embeddings (B, T, C)."""
        return x

    def end(self, stream: Stream, use: Use) -> Tensor:
        """The head's input (B, T, C), before its normalisation; a router reads it too."""
        return cast("Tensor", stream)

    def shift(self, stream: Stream, vector: Tensor) -> Stream:
        """The stream with a vector (C,) added for all tokens, such as a recursion step's."""
        return stream + vector.to(stream.dtype)

    @abc.abstractmethod
    def join(self, site: JoinSite) -> Join:
        """The join of one part of one block."""


class Part:
    """One part of a block: its component, its norm and its join.

    Its modules are the block's: `NAME`, `NAME_norm` and `NAME_join`.
    """

    def __init__(self, holder: nn.Module, name: str, scale: float = 1.0) -> None:
        self.holder = holder
        self.name = name
        self.scale = scale  # the parametrization's

    @property
    def module(self) -> Attention | FFN:
        """Its attention or FFN."""
        return cast("Any", self.holder.get_submodule(self.name))

    def read(self, stream: Stream, use: Use) -> Tensor:
        """The part's normalised input (B, T, C)."""
        modules = self.holder._modules  # noqa: SLF001 (one lookup; there is a pass for each token)
        x = cast("Join", modules[f"{self.name}_join"]).read(stream, self._own(use, "_join"))
        return normed(modules.get(f"{self.name}_norm"), x, use)

    def compute(self, x: Tensor, use: Use) -> tuple[Tensor, Aux]:
        """The part's output for x (B, T, C), after the recipe's dropout, and its terms."""
        modules = self.holder._modules  # noqa: SLF001 (the same)
        y, aux = with_aux(cast("nn.Module", modules[self.name])(x, self._own(use, "")))
        if self.scale != 1:
            y = y * self.scale
        dropout = cast("nn.Dropout", modules["dropout"])
        return dropout(y) if dropout.training and dropout.p else y, aux

    def join(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        """The stream after `y` (B, T, C) has joined."""
        join = cast("nn.Module", self.holder._modules[f"{self.name}_join"])  # noqa: SLF001
        return join(stream, y, self._own(use, "_join"))

    def __call__(self, stream: Stream, use: Use) -> tuple[Stream, Aux]:
        """Read, compute and join."""
        y, aux = self.compute(self.read(stream, use), use)
        return self.join(stream, y, use), aux

    def _own(self, use: Use, suffix: str) -> Use:
        """The use with the state of this piece of the block."""
        if use.states is not None:
            own = use.states.get(self.name + suffix)
            # Most pieces have no state. They share the block's use then if its own state is empty
            # too, since a copy for each token is slow.
            if own is not None or use.state:
                use = replace(use, state={} if own is None else own)
        if use.kept is not None and not suffix:
            use = replace(use, kept=use.kept.setdefault(self.name, {}))  # type: ignore[arg-type]
        return use


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSite(Site):
    """The place where a block is built, and the means to build its parts.

    Attributes:
        parts: what the entry of the stack names: `attention`, `ffn`, or either of them.
        make_part: makes a part; `part` calls it.
    """

    parts: Mapping[str, Any]
    make_part: Callable[[str, Any, bool, Site], Part]

    def part(self, name: str, spec: Any = None, *, alone: bool = False) -> Part:
        """Make a part of the block. On `site.wrapped(...)` its projections are wrapped.

        Args:
            name: its name in the model, such as `attention`.
            spec: its component: the value of a field that is declared with `Kind(...)`, or a
                module; None takes the component that the stack's entry gives under this name.
            alone: make neither a norm nor a join, for a block that adds up several outputs first.

        Raises:
            ValueError: the entry names no such part.
        """
        if spec is None and name not in self.parts:
            raise ValueError(f"this block has no `{name}:`; add one to its entry")
        given = self.parts[name] if spec is None else spec
        return self.make_part(name, given, alone, self)


class Block(Component, abc.ABC):
    """Which parts a block has, and in which order they run. Constructed with `(site, *, fields)`.

    The site is a `BlockSite`. A block may have a state of its own, beside those of its parts.

        class Twice(Block):
            def __init__(self, site):
                super().__init__()
                self.attention, self.ffn = site.part("attention"), site.part("ffn")

            def forward(self, stream, use):
                stream, first = self.attention(stream, use)
                stream, second = self.ffn(stream, use)
                stream, third = self.ffn(stream, use)
                return stream, first + second + third
    """

    @abc.abstractmethod
    def forward(self, stream: Stream, use: Use) -> tuple[Stream, Aux]:
        """Return the stream after this block, and the sum of its parts' terms."""


class PerStep(nn.Module):
    """A norm for each step of the innermost recursion; later steps use the last one."""

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)


def normed(norm: nn.Module | None, x: Tensor, use: Use) -> Tensor:
    """Apply a norm to x, this step's of a `PerStep`; return x unchanged if there is none."""
    if norm is None:
        return x
    if isinstance(norm, PerStep):
        norm = norm.norms[min(use.steps[-1], len(norm.norms) - 1)]
    return norm(x)
