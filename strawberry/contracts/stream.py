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
        scales_branch: whether it multiplies what joins by the site's `branch` itself, as one has to
            that normalises it; otherwise the block does, before it joins.
    """

    reads_normed: bool = True
    scales_branch: bool = False

    @abc.abstractmethod
    def read(self, stream: Stream, use: Use) -> Tensor:
        """What the part is given, (B, T, C), before it is normalised."""

    @abc.abstractmethod
    def forward(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        """The stream after the part computed `y`, (B, T, C)."""


class Residual(Component, abc.ABC):
    """What flows between the parts of all blocks. Constructed with `(site, *, fields)`.

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
        routable: whether the stream has the same tensors after a block as before it, so that a
            router can send some tokens on and merge what comes back.
    """

    def begin(self, x: Tensor, use: Use) -> Stream:
        """The stream before the first block, of the embeddings (B, T, C)."""
        return x

    def end(self, stream: Stream, use: Use) -> Tensor:
        """What the head reads, (B, T, C), before it is normalised; a router reads it too."""
        return cast("Tensor", stream)

    def shift(self, stream: Stream, vector: Tensor) -> Stream:
        """The stream with a vector (C,) added to what is read, such as a recursion step's."""
        return stream + vector.to(stream.dtype)

    @abc.abstractmethod
    def join(self, site: JoinSite) -> Join:
        """The join of one part of one block."""


class Part:
    """One part of a block: what it computes with, and how it reads and joins the stream.

    Its modules are the block's: `NAME`, `NAME_norm` and `NAME_join`.
    """

    def __init__(self, holder: nn.Module, name: str, scale: float = 1.0) -> None:
        self.holder = holder
        self.name = name
        self.scale = scale  # the parametrization's

    @property
    def module(self) -> Attention | FFN:
        """What it computes with."""
        return cast("Any", self.holder.get_submodule(self.name))

    def read(self, stream: Stream, use: Use) -> Tensor:
        """What the part is given of the stream, (B, T, C), normalised."""
        modules = self.holder._modules  # noqa: SLF001 (one lookup; there is a pass for each token)
        x = cast("Join", modules[f"{self.name}_join"]).read(stream, self._own(use, "_join"))
        return normed(modules.get(f"{self.name}_norm"), x, use)

    def compute(self, x: Tensor, use: Use) -> tuple[Tensor, Aux]:
        """What it makes of (B, T, C), with the recipe's dropout; and its terms."""
        modules = self.holder._modules  # noqa: SLF001 (the same)
        y, aux = with_aux(cast("nn.Module", modules[self.name])(x, self._own(use, "")))
        if self.scale != 1:
            y = y * self.scale
        dropout = cast("nn.Dropout", modules["dropout"])
        return dropout(y) if dropout.training and dropout.p else y, aux

    def join(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        """The stream once `y`, (B, T, C), has joined it."""
        join = cast("nn.Module", self.holder._modules[f"{self.name}_join"])  # noqa: SLF001
        return join(stream, y, self._own(use, "_join"))

    def __call__(self, stream: Stream, use: Use) -> tuple[Stream, Aux]:
        """Read, compute and join."""
        y, aux = self.compute(self.read(stream, use), use)
        return self.join(stream, y, use), aux

    def _own(self, use: Use, suffix: str) -> Use:
        """The use with what this piece of the block keeps."""
        if use.states is not None:
            own = use.states.get(self.name + suffix)
            # Most pieces keep nothing and find an empty state, as the block itself mostly has: no
            # copy then, for a use is copied for each token.
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
        """A part of the block; of `site.wrapped(...)` one whose projections are wrapped.

        Args:
            name: what it is called in the model, such as `attention`.
            spec: its component: the value of a field that is declared with `Kind(...)`, or a
                module; None takes the one of that name that the entry of the stack names.
            alone: give it neither a norm nor a join: the block joins its output with another's.

        Raises:
            ValueError: the entry names no such part.
        """
        if spec is None and name not in self.parts:
            raise ValueError(f"this block has no `{name}:`; add one to its entry")
        given = self.parts[name] if spec is None else spec
        return self.make_part(name, given, alone, self)


class Block(Component, abc.ABC):
    """Which parts a block has, and in which order they run. Constructed with `(site, *, fields)`.

    The site is a `BlockSite`. What the block keeps of earlier tokens for itself is its own state.

        class Twice(Block):
            def __init__(self, site):
                super().__init__()
                self.ffn = site.part("ffn")

            def forward(self, stream, use):
                stream, first = self.ffn(stream, use)
                stream, second = self.ffn(stream, use)
                return stream, first + second
    """

    @abc.abstractmethod
    def forward(self, stream: Stream, use: Use) -> tuple[Stream, Aux]:
        """The stream after this block, and the terms that its parts returned."""


class PerStep(nn.Module):
    """A normalisation for each step of the innermost recursion; beyond them that of the last."""

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)


def normed(norm: nn.Module | None, x: Tensor, use: Use) -> Tensor:
    """`x` through a norm, that of this step if there are several, or as it is without one."""
    if norm is None:
        return x
    if isinstance(norm, PerStep):
        norm = norm.norms[min(use.steps[-1], len(norm.norms) - 1)]
    return norm(x)
