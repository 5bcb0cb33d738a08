"""From a recipe to a model: every component is constructed here, and nowhere else.

A component that refuses its fields (FieldError, ValueError) becomes a located problem; building
goes on past it, so that all problems of a recipe are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from strawberry.contracts import (
    Attention,
    Bank,
    Declared,
    MatrixLayout,
    Norm,
    Positional,
    Projection,
    ProjectionRequest,
    RouterSite,
    Site,
    WeightScope,
    WeightSource,
    draw,
)
from strawberry.errors import Problem, RecipeError
from strawberry.model import pairings
from strawberry.model.language_model import LanguageModel
from strawberry.model.loss import LossTerms
from strawberry.model.recursion import Recursion
from strawberry.model.residual import Join, Mix, per_step
from strawberry.model.stack import Block, Stack
from strawberry.model.unrolled import expand, key_of, unrolled_depth
from strawberry.recipe.seeds import seed_of
from strawberry.recipe.spec import BlockSpec, ComponentSpec, RecurSpec, RepeatSpec

if TYPE_CHECKING:
    from strawberry.recipe.spec import NodeSpec, Recipe


def build(
    recipe: Recipe, device: str | torch.device = "cpu", *, place: Place | None = None
) -> LanguageModel:
    """The recipe's model on `device`; on `meta` nothing is allocated.

    Weights are drawn on the CPU from the seed of `init`: they are the same on every device. The
    caller's random state is left as it was. Raises RecipeError with every problem found.

    Args:
        recipe: what to build.
        device: where it shall be.
        place: called with each block, and with each outermost recursion, as soon as it is drawn:
            it may take the parameters elsewhere before the next are drawn.
    """
    drawn_on = "meta" if torch.device(device).type == "meta" else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(drawn_on):
        torch.manual_seed(seed_of(recipe, "init"))
        model = _Builder(recipe, place).model()
    return model if torch.device(device).type == drawn_on else model.to(device)


Place: TypeAlias = Callable[[Block | Stack], object]


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is in force around a node."""

    weights: WeightSource
    positional: Positional
    recursion: WeightScope  # what a weight source that is opened here is told
    step_norms: int = 0  # norms that each place has, one for each step; 0 for a single one


class _Broken(Exception):  # noqa: N818 (never leaves this module)
    """A part could not be built; its problem is on the list."""


class _Builder:
    def __init__(self, recipe: Recipe, place: Place | None = None) -> None:
        self.place = place
        self.spec = spec = recipe.model
        self.train = recipe.train
        self.problems: list[Problem] = []
        self.depth = unrolled_depth(spec.stack)
        self.n_blocks = 0
        self.honoured: set[str] = set()

    def model(self) -> LanguageModel:
        spec = self.spec
        positional = self._positional(spec.positional)
        outside = WeightScope(spec.n_embd)
        weights = self._weights(spec.weights, outside)
        norm = self._norm_of(spec.norm)
        parts = None
        if positional is not None and weights is not None and norm is not None:
            scope = _Scope(weights, positional, outside)
            nodes = [self._node(node, scope) for node in expand(spec.stack)]
            if not self.problems:
                self.problems += pairings.of_positions(spec.positional, positional, self.honoured)
            if not self.problems:
                parts = Stack([node for node in nodes if node is not None])
        if parts is None:
            raise RecipeError(list(dict.fromkeys(self.problems)))
        assert positional is not None
        assert weights is not None
        assert norm is not None
        return LanguageModel(
            embedding=self._embedding(),
            embedding_norm=norm(spec.n_embd) if spec.embedding_norm else None,
            positional=positional,
            weights=weights,
            stack=parts,
            norm=norm(spec.n_embd),
            head=None if spec.tie_embeddings else self._head(),
            dropout=spec.dropout,
            block_size=spec.block_size,
            logit_softcap=spec.logit_softcap,
            keep_history=spec.residual == "attention",
            loss_terms=LossTerms(self.train.z_loss, self.train.label_smoothing),
        )

    # Nodes

    def _node(self, spec: NodeSpec, scope: _Scope) -> Block | Stack | None:
        try:
            inside = scope.recursion
            if isinstance(spec, RecurSpec):
                level = 0 if inside.level is None else inside.level + 1
                inside = WeightScope(self.spec.n_embd, spec.count, level)
            own = None if spec.weights is None else self._weights(spec.weights, inside)
            if spec.weights is not None and own is None:
                return None
            inner = replace(scope, weights=own or scope.weights, recursion=inside)
            if isinstance(spec, RecurSpec):
                inner = replace(inner, step_norms=spec.count if spec.step_norms else 0)
            node: Block | Stack
            if isinstance(spec, BlockSpec):
                node = self._block(spec, inner, own)
            else:
                node = self._stack(spec, inner, own)
        except _Broken:
            return None
        outermost = scope.recursion.level is None and not isinstance(spec, RepeatSpec)
        if outermost and self.place is not None:
            self.place(node)
        return node

    def _stack(
        self, spec: RepeatSpec | RecurSpec, scope: _Scope, own: WeightSource | None
    ) -> Stack:
        inside = expand(spec.stack) * (spec.count if isinstance(spec, RepeatSpec) else 1)
        built = [self._node(node, scope) for node in inside]
        nodes = [node for node in built if node is not None]
        if len(nodes) < len(built):
            raise _Broken
        if isinstance(spec, RepeatSpec):
            return Stack(nodes, own)
        router = None
        if spec.router is not None:
            router = self._construct(spec.router, RouterSite(self.spec.n_embd, spec.count))
        problems = list(pairings.of_recursion(spec, nodes, self.spec.residual))
        self.problems += problems
        if problems:
            raise _Broken
        if spec.router is not None and router is None:
            raise _Broken
        try:
            return Recursion(
                nodes,
                spec.count,
                spec.sharing,
                own,
                router=router,
                share_keys=spec.keys == "first",
                step_embedding=self.spec.n_embd if spec.step_embedding else None,
            )
        except ValueError as error:
            self.problems.append(spec.at.problem("sharing", str(error)))
            raise _Broken from error

    def _block(self, spec: BlockSpec, scope: _Scope, own: WeightSource | None) -> Block:
        index = self.n_blocks
        self.n_blocks += 1
        override = None if spec.positional is None else self._positional(spec.positional)
        if spec.positional is not None and override is None:
            raise _Broken
        scope = replace(scope, positional=override or scope.positional)
        norm = self._norm_of(spec.norm or self.spec.norm)
        attention = self._part(spec.attention, scope, index, norm)
        ffn = self._part(spec.ffn, scope, index, norm)
        if norm is None or (spec.attention and not attention) or (spec.ffn and not ffn):
            raise _Broken
        if isinstance(attention, Attention):
            self.honoured |= attention.honours
            self.problems += pairings.of_override(spec, attention, override)
            if self.train.document_mask:
                self.problems += pairings.of_documents(spec, attention)
        before = self.spec.placement != "post"
        around = per_step(norm, scope.step_norms)
        return Block(
            attention=attention,
            ffn=ffn,
            attention_norm=around(self.spec.n_embd) if attention is not None and before else None,
            ffn_norm=around(self.spec.n_embd) if ffn is not None and before else None,
            attention_join=self._join(around) if attention is not None else None,
            ffn_join=self._join(around) if ffn is not None else None,
            positional=override,
            weights=own,
            dropout=self.spec.dropout,
            key=key_of(spec, scope.weights, scope.positional),
        )

    def _join(self, norm: Callable[[int], nn.Module]) -> Join:
        spec = self.spec
        scale = spec.residual_scale
        if scale == "depth":
            scale = (2 * self.depth) ** -0.5
        kind = Mix if spec.residual == "attention" else Join
        return kind(
            spec.n_embd,
            scale=scale,
            inner=norm(spec.n_embd) if spec.placement == "sandwich" else None,
            outer=norm(spec.n_embd) if spec.placement == "post" else None,
        )

    # Components

    def _part(
        self,
        spec: ComponentSpec | None,
        scope: _Scope,
        index: int,
        norm: Callable[[int], Norm] | None,
    ) -> Any:
        if spec is None or norm is None:
            return None
        return self._construct(spec, self._site(scope, index, norm, spec.kind))

    def _site(self, scope: _Scope, index: int, norm: Callable[[int], Norm], prefix: str) -> Site:
        model = self.spec

        def request(
            name: str,
            out_features: int,
            in_features: int,
            output: bool,
            bias: bool,
            parts: Declared | MatrixLayout | None,
        ) -> ProjectionRequest:
            if out_features < 1 or in_features < 1:
                raise ValueError(f"its matrix {name} would be {out_features} x {in_features}")
            uniform = model.init == "fan_in"
            std = in_features**-0.5 if uniform else model.init_std
            if output and not uniform:
                std *= (2 * self.depth) ** -0.5  # GPT-2's: the residual stream sums 2 L of them
            if output and model.zero_outputs:
                std = 0.0
            inside = MatrixLayout.of(parts if parts is not None else {name: out_features})
            if inside.rows != out_features:
                message = f"its matrix {name} has {out_features} rows, its parts {inside.rows}"
                raise ValueError(message)
            return ProjectionRequest(
                block=index,
                name=f"{prefix}.{name}",
                out_features=out_features,
                in_features=in_features,
                bias=bias,
                std=std,
                uniform=uniform,
                parts=inside,
            )

        def projection(
            name: str,
            out_features: int,
            in_features: int,
            *,
            output: bool = False,
            bias: bool | None = None,
            parts: Declared | MatrixLayout | None = None,
        ) -> Projection:
            biased = model.bias if bias is None else bias
            return scope.weights.projection(
                request(name, out_features, in_features, output, biased, parts)
            )

        def bank(
            name: str,
            experts: int,
            out_features: int,
            in_features: int,
            *,
            output: bool = False,
            parts: Declared | MatrixLayout | None = None,
        ) -> Bank:
            return scope.weights.bank(
                request(name, out_features, in_features, output, False, parts), experts
            )

        def component(nested: ComponentSpec) -> Any:
            site = self._site(scope, index, norm, f"{prefix}.{nested.kind}")
            built = self._construct(nested, site)
            if built is None:
                raise _Broken
            return built

        return Site(
            n_embd=model.n_embd,
            vocab_size=model.vocab_size,
            block_size=model.block_size,
            dropout=model.dropout,
            bias=model.bias,
            depth=self.depth,
            projection=projection,
            bank=bank,
            norm=norm,
            component=component,
            positional=scope.positional,
        )

    def _positional(self, spec: ComponentSpec) -> Positional | None:
        built: Positional | None = self._construct(spec, self.spec.n_embd, self.spec.block_size)
        return built

    def _weights(self, spec: ComponentSpec, scope: WeightScope) -> WeightSource | None:
        def component(nested: ComponentSpec) -> WeightSource:
            built: WeightSource | None = self._construct(nested, inside)
            if built is None:
                raise _Broken
            return built

        inside = replace(scope, component=component)
        built: WeightSource | None = self._construct(spec, inside)
        if built is not None and self.train.document_mask and not built.separates:
            message = "can't keep documents apart: write `train.document_mask: false`"
            self.problems.append(spec.problem("", f"{spec.entry.name!r} {message}"))
        return built

    def _norm_of(self, spec: ComponentSpec) -> Callable[[int], Norm] | None:
        """A maker of the recipe's norms, tried once so that its problems are located."""
        if self._construct(spec, self.spec.n_embd) is None:
            return None
        maker: Callable[..., Norm] = spec.entry.load()
        return lambda features: maker(features, **spec.fields)

    def _construct(self, spec: ComponentSpec, *given: Any) -> Any:
        """The component, or None once its refusal is a problem at its place in the recipe."""
        try:
            return spec.construct(*given)
        except _Broken:  # a nested one, reported where it stands
            return None
        except RecipeError as error:
            self.problems += error.problems
        return None

    # Tables

    def _embedding(self) -> nn.Embedding:
        shape = (self.spec.vocab_size, self.spec.n_embd)
        table = nn.Embedding(*shape, _weight=torch.empty(shape))
        self._draw(table.weight)
        return table

    def _head(self) -> nn.Linear:
        head = nn.Linear(self.spec.n_embd, self.spec.vocab_size, bias=False)
        if self.spec.zero_outputs:
            draw(head.weight, 0.0, uniform=False)
        else:
            self._draw(head.weight)
        return head

    def _draw(self, table: Tensor) -> None:
        fan_in = self.spec.init == "fan_in"
        draw(table, self.spec.n_embd**-0.5 if fan_in else self.spec.init_std, uniform=fan_in)
