"""Making a block: its body asks for its parts, which are built and become the node's modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from strawberry.contracts import (
    Block,
    BlockSite,
    Component,
    JoinSite,
    NormSite,
    Part,
    PerStep,
    Residual,
    Site,
)
from strawberry.model.stack import BlockNode

if TYPE_CHECKING:
    from strawberry.recipe.spec import ComponentSpec


class BlockMaker:
    """Makes one block.

    Args:
        site: of the block.
        residual: makes the joins of its parts.
        construct: builds a component, or raises where it can't.
        step_norms: norms that each place has, one for each recursion step; 0 for a single one.

    Attributes:
        specs: what was asked for, by the name of the part, as far as the recipe says it.
    """

    def __init__(
        self,
        site: Site,
        residual: Residual,
        construct: Callable[[ComponentSpec, Site], Any],
        step_norms: int,
    ) -> None:
        self.site = site
        self.residual = residual
        self.construct = construct
        self.step_norms = step_norms
        self.node = BlockNode(site.dropout)
        self.parts: dict[str, Part] = {}
        self.alone: set[str] = set()
        self.specs: dict[str, ComponentSpec] = {}

    def make(self, body: ComponentSpec, parts: dict[str, ComponentSpec]) -> BlockNode:
        """The block, whose body is built at a site that makes parts of it."""
        fields = {item.name: getattr(self.site, item.name) for item in dataclasses.fields(Site)}
        site = BlockSite(**{**fields, "role": "block"}, parts=parts, make_part=self.part)
        block: Block = self.construct(body, site)
        for name in self.node.names:
            if name not in self.alone:
                self._join(name)
        self.node.add_module("body", block)
        return self.node.sealed()

    def part(self, name: str, what: Any, alone: bool, at: Site) -> Part:
        """A part of the block, asked for at its site: see `BlockSite.part`."""
        taken = self.node.names
        if not name.isidentifier() or name in (
            *taken,
            "body",
            "dropout",
            "positional",
            "weights",
            "residual",
        ):
            raise ValueError(f"no part can be called {name!r}: choose a word that is not taken")
        module = what
        if not isinstance(what, nn.Module):
            self.specs[name] = what
            site = dataclasses.replace(self.site, role=name, wraps=at.wraps)
            module = self.construct(what, site)
        if not isinstance(module, Component):
            raise ValueError(f"part {name!r} is a {type(module).__name__}, not a Component")
        self.node.register_module(name, module)
        taken.append(name)
        if alone:
            self.alone.add(name)
        self.parts[name] = Part(self.node, name, self.site.parametrization.branch())
        return self.parts[name]

    def _join(self, name: str) -> None:
        """How a part reads and joins the stream; then the norm before it, where it wants one."""
        joined = [each for each in self.node.names if each not in self.alone]
        index = joined.index(name)
        join = self.residual.join(
            JoinSite(
                n_embd=self.site.n_embd,
                depth=self.site.depth,
                block=self.site.block,
                part=name,
                index=index,
                last=index == len(joined) - 1,
                steps=self.site.steps,
                make_norm=self._norm,
                branch=self.parts[name].scale,
            )
        )
        if join.scales_branch:
            self.parts[name].scale = 1.0
        self.node.register_module(f"{name}_join", join)
        if join.reads_normed:
            self.node.register_module(f"{name}_norm", self._norm(name))

    def _norm(self, role: str) -> nn.Module:
        """A norm over C, or one for each step of the innermost recursion."""
        site = NormSite(self.site.n_embd, self.site.depth, self.site.block, self.site.steps, role)
        if not self.step_norms:
            return self.site.make_norm(site)
        return PerStep(self.site.make_norm(site) for _ in range(self.step_norms))
