"""Build a model from a recipe; no other module constructs components.

A component that rejects its fields (FieldError, ValueError) becomes a located problem. Building
continues after it, so all problems of a recipe are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch

from strawberry.contracts import (
    Embedding,
    Initial,
    Loop,
    Norm,
    NormSite,
    Parametrization,
    ParametrizationSite,
    Positional,
    PositionalSite,
    Residual,
    ResidualSite,
    RouterSite,
    Site,
    Weight,
    WeightSite,
    WeightSource,
)
from strawberry.errors import Problem, RecipeError, StrawberryError
from strawberry.model import pairings
from strawberry.model.blocks import BlockMaker
from strawberry.model.ends import Ends
from strawberry.model.language_model import LanguageModel
from strawberry.model.looping import loop_site
from strawberry.model.own import objective_site
from strawberry.model.recursion import Recursion
from strawberry.model.stack import BlockNode, Stack
from strawberry.model.weighing import Weighing, Wide
from strawberry.recipe.growth import resized
from strawberry.recipe.load import patch
from strawberry.recipe.seeds import seed_of
from strawberry.recipe.spec import BlockSpec, ComponentSpec, RecurSpec, RepeatSpec
from strawberry.recipe.unrolled import expand, key_of, last_block, unrolled_depth

if TYPE_CHECKING:
    from strawberry.recipe.spec import NodeSpec, Recipe


def build(
    recipe: Recipe, device: str | torch.device = "cpu", *, place: Place | None = None
) -> LanguageModel:
    """The recipe's model on `device`; on `meta` nothing is allocated.

    Weights are drawn on the CPU from the seed of `init`: they are the same on every device. The
    caller's random state stays unchanged. Raises RecipeError with every problem.

    Args:
        recipe: the recipe.
        device: the device.
        place: called with each block, and with each outermost recursion, after its initialisation;
            may move the parameters before the next ones are initialised.
    """
    drawn_on = "meta" if torch.device(device).type == "meta" else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(drawn_on):
        wide = _wide(recipe)
        torch.manual_seed(seed_of(recipe, "init"))
        model = _Builder(recipe, place, wide).model()
    return model if torch.device(device).type == drawn_on else model.to(device)


def _wide(recipe: Recipe) -> Wide | None:
    """The recipe at twice its width, where its parametrization looks at what grows."""
    spec = recipe.model.components["parametrization"]
    if not getattr(spec.entry.load(), "sees_growth", False):
        return None
    plain = {PARAMETRIZATION: "strawberry/standard"}
    try:
        builder = _Builder(resized(patch(recipe, plain), 2 * recipe.model.n_embd))
        with torch.device("meta"):
            model = builder.model()
    except StrawberryError as error:
        message = f"it compares the recipe with itself at twice the width, which fails: {error}"
        raise RecipeError([spec.problem("", message)]) from error
    return Wide(builder.weighing.asked, [tuple(p.shape) for p in model.parameters()])


PARAMETRIZATION: Final = "model.parametrization"

Place: TypeAlias = Callable[[BlockNode | Stack], object]


@dataclass(frozen=True, slots=True)
class _Scope:
    """The surroundings of a node."""

    weights: WeightSource
    positional: Positional
    recursion: WeightSite  # what a weight source that is opened here is told
    norm: Callable[[NormSite], Norm]
    residual: Residual
    steps: tuple[int, ...] = ()  # of each recursion around it, outermost first
    step_norms: int = 0  # norms that each place has, one for each step; 0 for a single one


class _Broken(Exception):  # noqa: N818 (never leaves this module)
    """A part could not be built; its problem is recorded."""


class _FanIn(Parametrization):
    """Stands in for one that can't be built, so that the other problems are found as well."""

    def initial(self, weight: Weight) -> Initial:
        return Initial(weight.fan_in**-0.5)


class _Builder:
    def __init__(
        self, recipe: Recipe, place: Place | None = None, wide: Wide | None = None
    ) -> None:
        self.place = place
        self.recipe = recipe
        self.spec = spec = recipe.model
        self.train = recipe.train
        self.problems: list[Problem] = []
        self.depth = unrolled_depth(spec.stack)
        self.n_blocks = 0
        self.honoured: set[str] = set()
        site = ParametrizationSite(spec.n_embd, self.depth)
        built = self._construct(spec.components["parametrization"], site)
        self.parametrization: Parametrization = built or _FanIn(site)
        self.weighing = Weighing(self.parametrization, wide)

    def model(self) -> LanguageModel:
        spec = self.spec
        positional = self._positional(spec.positional)
        outside = WeightSite(spec.n_embd)
        weights = self._weights(spec.weights, outside)
        norm = self._norm_of(spec.norm)
        residual: Residual | None = self._construct(
            spec.components["residual"], ResidualSite(spec.n_embd, self.depth)
        )
        parts = None
        if not (positional is None or weights is None or norm is None or residual is None):
            scope = _Scope(weights, positional, outside, norm, residual)
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
        assert residual is not None
        if self.problems:
            raise RecipeError(list(dict.fromkeys(self.problems)))
        embedding = self._embedding(parts)
        ends = Ends(spec, self.parametrization)
        model = LanguageModel(
            embedding=embedding,
            vocab_size=spec.vocab_size,
            n_embd=spec.n_embd,
            embedding_norm=(
                norm(NormSite(spec.n_embd, self.depth, role="embedding"))
                if spec.embedding_norm
                else None
            ),
            positional=positional,
            weights=weights,
            stack=parts,
            norm=norm(NormSite(spec.n_embd, self.depth, role="head")),
            head=None if spec.tie_embeddings else ends.head(),
            dropout=spec.dropout,
            block_size=spec.block_size,
            logit_softcap=spec.logit_softcap,
            residual=residual,
            parametrization=self.parametrization,
            wide=self.weighing.wide,
        )
        model.multipliers = ends.multipliers()
        self._objective(model, _Scope(weights, positional, outside, norm, residual))
        return model

    # Nodes

    def _node(self, spec: NodeSpec, scope: _Scope) -> BlockNode | Stack | None:
        try:
            inside = scope.recursion
            if isinstance(spec, RecurSpec):
                level = 0 if inside.level is None else inside.level + 1
                inside = WeightSite(self.spec.n_embd, spec.count, level)
            own = None if spec.weights is None else self._weights(spec.weights, inside)
            if spec.weights is not None and own is None:
                return None
            inner = replace(scope, weights=own or scope.weights, recursion=inside)
            if isinstance(spec, RecurSpec):
                inner = replace(
                    inner,
                    steps=(*scope.steps, spec.count),
                    step_norms=spec.count if spec.step_norms else 0,
                )
            node: BlockNode | Stack
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
            around = scope.steps[:-1]
            site = RouterSite(self.spec.n_embd, spec.count, self.depth, around)
            router = self._construct(spec.router, site)
        loop = None if spec.loop is None else self._loop(spec.loop, spec, scope)
        given = spec, nodes, scope.residual, loop, self.train.document_mask
        problems = list(pairings.of_recursion(*given))
        self.problems += problems
        if problems or (spec.router is not None and router is None):
            raise _Broken
        if spec.loop is not None and loop is None:
            raise _Broken
        try:
            return Recursion(
                nodes,
                spec.count,
                spec.sharing,
                own,
                router=router,
                loop=loop,
                share_keys=spec.keys == "first",
                step_embedding=self.spec.n_embd if spec.step_embedding else None,
            )
        except ValueError as error:
            self.problems.append(spec.at.problem("sharing", str(error)))
            raise _Broken from error

    def _loop(self, loop: ComponentSpec, spec: RecurSpec, scope: _Scope) -> Loop | None:
        """The loop of a recursion, which stands outside of its steps."""
        site = self._site(replace(scope, steps=scope.steps[:-1]), self.n_blocks, loop.kind)
        built: Loop | None = self._construct(loop, loop_site(site, spec.count))
        return built

    def _block(self, spec: BlockSpec, scope: _Scope, own: WeightSource | None) -> BlockNode:
        index = self.n_blocks
        self.n_blocks += 1
        override = None if spec.positional is None else self._positional(spec.positional, index)
        if spec.positional is not None and override is None:
            raise _Broken
        norm = scope.norm if spec.norm is None else self._norm_of(spec.norm)
        if norm is None:
            raise _Broken
        scope = replace(scope, positional=override or scope.positional, norm=norm)
        residual = scope.residual
        if spec.residual is not None:
            residual = self._nested(spec.residual, ResidualSite(self.spec.n_embd, self.depth))
            self.problems += pairings.of_streams(spec.residual, residual, scope.residual)
        site = self._site(scope, index, "")
        maker = BlockMaker(site, residual, self._nested, scope.step_norms)
        body = spec.components.get("block") or self.spec.components["block"]
        named = (("attention", spec.attention), ("ffn", spec.ffn))
        try:
            node = maker.make(body, {name: part for name, part in named if part is not None})
        except ValueError as error:
            self.problems.append(body.problem("", str(error)))
            raise _Broken from error
        node.positional, node.weights = override, own
        node.residual = None if residual is scope.residual else residual
        node.key = key_of(spec, body, scope.weights, scope.positional)
        mixers = pairings.mixers(node, maker.specs)
        self.honoured |= {place for _, mixer in mixers for place in mixer.honours}
        self.problems += pairings.of_override(spec, mixers, override)
        if self.train.document_mask:
            self.problems += pairings.of_documents(spec, node, maker.specs)
        return node

    def _objective(self, model: LanguageModel, scope: _Scope) -> None:
        """Give the model its objective, whose parameters are the last to be drawn."""
        spec = self.recipe.objective
        last = last_block(self.spec.stack)
        site = objective_site(
            model,
            self._site(scope, self.n_blocks, spec.kind),
            lambda: self._block(last, scope, None),
            self.recipe.source.parent,
        )
        built = self._construct(spec, site)
        if built is None:
            raise RecipeError(list(dict.fromkeys(self.problems)))
        model.objective = built

    # Components

    def _site(self, scope: _Scope, index: int, role: str) -> Site:
        model = self.spec
        return Site(
            n_embd=model.n_embd,
            vocab_size=model.vocab_size,
            block_size=model.block_size,
            dropout=model.dropout,
            bias=model.bias,
            depth=self.depth,
            block=index,
            steps=scope.steps,
            role=role,
            positional=scope.positional,
            weights=scope.weights,
            parametrization=self.parametrization,
            make_initial=self.weighing.initial,
            make_norm=scope.norm,
            make_component=self._nested,
        )

    def _nested(self, spec: ComponentSpec, site: Any) -> Any:
        """A component in a field of another one."""
        built = self._construct(spec, site)
        if built is None:
            raise _Broken
        return built

    def _positional(self, spec: ComponentSpec, block: int | None = None) -> Positional | None:
        site = PositionalSite(self.spec.n_embd, self.spec.block_size, block)
        built: Positional | None = self._construct(spec, site)
        return built

    def _weights(self, spec: ComponentSpec, site: WeightSite) -> WeightSource | None:
        site = replace(site, make_component=self._nested)
        built: WeightSource | None = self._construct(spec, site)
        if built is not None and self.train.document_mask and not built.separates:
            message = "can't separate documents; write `train.document_mask: false`"
            self.problems.append(spec.problem("", f"{spec.entry.name!r} {message}"))
        return built

    def _norm_of(self, spec: ComponentSpec) -> Callable[[NormSite], Norm] | None:
        """A maker of the recipe's norms, tried once so that its problems are located."""
        if self._construct(spec, NormSite(self.spec.n_embd, self.depth)) is None:
            return None
        maker: Callable[..., Norm] = spec.entry.load()
        return lambda site: maker(site, **spec.fields)

    def _construct(self, spec: ComponentSpec, site: Any) -> Any:
        """The component, or None after recording its error at its place in the recipe."""
        try:
            return spec.construct(site)
        except _Broken:  # a nested one, reported where it stands
            return None
        except RecipeError as error:
            self.problems += error.problems
        return None

    def _embedding(self, stack: Stack) -> Embedding:
        """The embedding; what a tied head and the blocks want of it is there."""
        spec = self.spec.components["embedding"]
        site = Ends(self.spec, self.parametrization).site(self.depth, self.n_blocks, self._nested)
        built: Embedding | None = self._construct(spec, site)
        if built is not None:
            self.problems += pairings.of_embedding(self.spec, built, stack)
            if self.train.document_mask and not built.separates:
                message = "can't separate documents; write `train.document_mask: false`"
                self.problems.append(spec.problem("", f"{spec.entry.name!r} {message}"))
        if built is None or self.problems:
            raise RecipeError(list(dict.fromkeys(self.problems)))
        return built
