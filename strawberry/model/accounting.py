"""What a model costs, counted on the meta device rather than declared.

FLOPs are those of matrix products (two a multiply-add), as torch's counter sees them; a causal
attention is counted in full, not halved. Elementwise work is not counted. Blocks that are built
alike are counted once, so that a model of any depth is answered in the time of its distinct parts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from strawberry.model.blame import blaming
from strawberry.model.build import build
from strawberry.model.contracts import Bank, Projection, Shared, State, Use, Weights
from strawberry.model.counting import Cost, count, saved_bytes
from strawberry.model.loss import linear_cross_entropy
from strawberry.model.residual import Stream, written
from strawberry.model.risks import risks
from strawberry.model.stack import Block, Room

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.model.recursion import Recursion
    from strawberry.model.stack import Visit
    from strawberry.recipe.spec import Recipe

HEAD_TOKENS = 64


@dataclass(frozen=True, slots=True)
class PartReport:
    """A line of the report: a distinct part of the model, and how often it is used."""

    path: str
    name: str
    shape: str
    parameters: int
    uses: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Report:
    """What a recipe's model comes to.

    Attributes:
        parameters: unique parameters, by kind (`embedding`, `matrix`, `vector`, ...).
        effective_parameters: what a model would have if every use of a block had dense weights of
            its own.
        depth: block uses, unrolled.
        unique_depth: blocks with weights of their own.
        flops_forward_per_token: FLOPs for each token, over a sequence of `block_size`; what is
            computed once in a pass is shared among the tokens of a micro-batch.
        flops_training_per_token: the same for forward and backward together.
        batch_tokens: tokens in a micro-batch of the recipe.
        activation_bytes: kept for the backward pass of a micro-batch, in float32.
        activation_once_bytes: those of them that are kept however many sequences it has.
    """

    name: str
    block_size: int
    parameters: dict[str, int]
    effective_parameters: int
    depth: int
    unique_depth: int
    flops_forward_per_token: float
    flops_training_per_token: float
    cache_bytes_per_token: int
    cache_fixed_bytes: int
    batch_tokens: int
    activation_bytes: int
    activation_once_bytes: int = 0
    parts: list[PartReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def total_parameters(self) -> int:
        """Unique parameters of all kinds."""
        return sum(self.parameters.values())


def account(recipe: Recipe, model: LanguageModel | None = None) -> Report:
    """Count the recipe's model; `model`, if given, is the same one on the meta device.

    Raises RecipeError if a plugin's component can't be run there.
    """
    with blaming(recipe):
        return _account(recipe, model if model is not None else build(recipe, "meta"))


def _account(recipe: Recipe, model: LanguageModel) -> Report:
    spec = recipe.model
    costs: dict[str, Cost] = {}
    parts: dict[int, PartReport] = {}
    visits = model.visits()
    once, derived = _derived(model, visits)
    total = Cost()
    most = most_once = 0
    for visit in visits:
        cost = _visit_cost(model, visit, spec.block_size, costs, derived)
        total += cost
        most, most_once = max(most, cost.saved_bytes), max(most_once, cost.saved_once_bytes)
        line = parts.get(id(visit.block))
        parts[id(visit.block)] = replace(line, uses=line.uses + 1) if line else _part(visit, cost)
    for recursion in model.stack.recursions():
        if recursion.router is not None:
            total += _router_cost(recursion, spec.block_size, spec.n_embd, model.device)
    head = _head_cost(model, spec.block_size)
    total += head
    kinds: dict[str, int] = {}
    for info in model.parameter_infos():
        kinds[info.kind] = kinds.get(info.kind, 0) + info.parameter.numel()
    outside = sum(p.numel() for name, p in model.named_parameters() if "stack" not in name)
    outside -= sum(p.numel() for p in model.weights.parameters())
    tokens = recipe.train.batch_size * spec.block_size
    kept, kept_once = total.saved_bytes, total.saved_once_bytes + once.saved_bytes
    if recipe.train.checkpoint_activations:  # what enters each block, and one block's inside
        kept = len(visits) * spec.block_size * spec.n_embd * 4 + most + head.saved_bytes
        kept_once = most_once + once.saved_bytes
    return Report(
        name=recipe.name,
        block_size=spec.block_size,
        parameters=kinds,
        effective_parameters=outside + sum(_dense_parameters(v.block) for v in visits),
        depth=len(visits),
        unique_depth=len(parts),
        flops_forward_per_token=total.flops_forward / spec.block_size + once.flops_forward / tokens,
        flops_training_per_token=total.flops_training / spec.block_size
        + once.flops_training / tokens,
        cache_bytes_per_token=total.cache_bytes_per_token,
        cache_fixed_bytes=total.cache_fixed_bytes,
        batch_tokens=tokens,
        activation_bytes=kept * recipe.train.batch_size + kept_once,
        activation_once_bytes=kept_once,
        parts=[*parts.values(), _head_part(model, head)],
        warnings=risks(recipe, model),
    )


def _derived(model: LanguageModel, visits: list[Visit]) -> tuple[Cost, dict[Any, list[Tensor]]]:
    """What weight sources compute once in a pass, whatever the tokens: its cost, and the result."""
    once: dict[Any, list[Tensor]] = {}

    def run(y: Tensor) -> Tensor:
        for visit in visits:
            use = Use(
                positions=torch.arange(1, device=model.device),
                offset=0,
                positional=model.positional,
                weights=visit.weights,
                steps=visit.steps,
                once=once,
            )
            visit.weights.prepare(use)
        return y.sum() + sum(tensor.sum() for values in once.values() for tensor in values)

    cost = Cost()
    if any(type(visit.weights).prepare is not Weights.prepare for visit in visits):
        cost = count(run, torch.empty(1, device=model.device), set(model.parameters()), once.clear)
    return cost, {
        key: [tensor.detach().requires_grad_() for tensor in values] for key, values in once.items()
    }


def _visit_cost(
    model: LanguageModel,
    visit: Visit,
    length: int,
    known: dict[str, Cost],
    derived: dict[Any, list[Tensor]],
) -> Cost:
    """The cost of one use of a block, counted once for equal blocks.

    A routed use is counted for the share of tokens that it is meant for.
    """
    block = visit.block
    tokens = max(1, int(visit.share * length + 1e-9))
    key = block.key if visit.weights.same_cost else f"{visit.path} {visit.steps}"
    key = f"{key} {tokens} {visit.later}"
    if key in known:
        return known[key]
    width, device = model.embedding.embedding_dim, model.device
    use = Use(
        positions=torch.arange(tokens, device=device),
        offset=0,
        positional=model.positional,
        weights=visit.weights,
        steps=visit.steps,
        tokens=torch.zeros(1, tokens, dtype=torch.long, device=device),
        once=derived,
    )
    if visit.later:
        use = _with_keys(model, visit, use, length)

    def run(y: Tensor, use: Use = use) -> Tensor:
        # A longer history adds a few numbers a token: what was written is kept already.
        history = (written(y),) if model.keep_history else ()
        return block(Stream(y, history), use, 0)[0].x

    x = torch.empty(1, tokens, width, device=device)
    parameters = {*model.parameters(), *itertools.chain(*derived.values())}
    cost = count(run, x, parameters)
    once = 0
    if not visit.later:  # where there are two sequences, what is kept for both counts once
        both = replace(use, memo={}, tokens=torch.zeros(2, tokens, dtype=torch.long, device=device))
        two = saved_bytes(lambda y: run(y, both), x.new_empty(2, *x.shape[1:]), parameters)
        once = max(0, 2 * cost.saved_bytes - two)
    short, long = (_state_bytes(visit, n * length, device) for n in (1, 2))
    slope = (long - short) // length
    known[key] = replace(
        cost,
        saved_bytes=cost.saved_bytes - once,
        saved_once_bytes=once,
        cache_fixed_bytes=short - slope * length,
        cache_bytes_per_token=slope,
    )
    return known[key]


def _with_keys(model: LanguageModel, visit: Visit, use: Use, length: int) -> Use:
    """The use of a later step, with the keys of a first one for all tokens."""
    store: dict[int, State] = {}
    every = torch.arange(length, device=model.device)
    first = replace(
        use,
        positions=every,
        steps=(*use.steps[:-1], 0),
        memo={},
        tokens=torch.zeros(1, length, dtype=torch.long, device=model.device),
        shared=Shared(store, 0, later=False, tokens=length),
    )
    x = torch.empty(1, length, model.embedding.embedding_dim, device=model.device)
    with torch.no_grad():
        visit.block(Stream(x, (written(x),) if model.keep_history else ()), first, 0)
    places = None if len(use.positions) == length else use.positions[None]
    return replace(use, shared=Shared(store, 0, later=True, tokens=length, places=places))


def _router_cost(recursion: Recursion, length: int, width: int, device: torch.device) -> Cost:
    """What a recursion's router costs, and the cache in which it keeps where tokens went."""
    router = recursion.router
    assert router is not None
    flops = 0
    carried: State = {}
    asked = [1.0, *router.shares()]  # those that ran the step before
    for step, share in zip(range(recursion.steps), asked, strict=False):
        tokens = max(1, int(share * length + 1e-9))
        x = torch.empty(1, tokens, width, device=device)
        carried = {name: kept[:, :tokens] for name, kept in carried.items()}
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            carried = router.route(x, step, carried, length, None).carried
        flops += counter.get_total_flops()
    return Cost(
        flops_forward=flops,
        flops_training=3 * flops,
        cache_fixed_bytes=8 * recursion.steps,
        cache_bytes_per_token=8 * recursion.steps,
    )


def _head_cost(model: LanguageModel, length: int) -> Cost:
    """Embedding, final norm and loss: counted for a few tokens and scaled, for it is linear."""
    parameters = set(model.parameters())
    targets = torch.zeros(HEAD_TOKENS, dtype=torch.long, device=model.device)
    h = torch.empty(HEAD_TOKENS, model.embedding.embedding_dim, device=model.device)

    def run(y: Tensor) -> Tensor:
        y = model.norm(y)
        return linear_cross_entropy(y, model.head_weight, targets, model.logit_softcap)

    cost = count(run, h, parameters)
    # The gradient of the head's matrix is kept from the loss on, once, however many tokens.
    per_token = cost.saved_bytes - model.head_weight.numel() * 4
    return Cost(
        flops_forward=cost.flops_forward * length // HEAD_TOKENS,
        flops_training=cost.flops_training * length // HEAD_TOKENS,
        saved_bytes=max(0, per_token) * length // HEAD_TOKENS,
    )


def _state_bytes(visit: Visit, length: int, device: torch.device) -> int:
    room = Room(1, length, device, torch.float32)
    states = visit.block.new_states(room, visit.weights, visit.later)
    return sum(t.nbytes for state in states for t in state.values())


def _dense_parameters(block: Block) -> int:
    """What the block would own if each of its projections were dense and its own."""
    inside: set[nn.Parameter] = set()
    total = 0
    for module in block.modules():
        if isinstance(module, Projection):
            inside |= set(module.parameters())
            bias = getattr(module, "bias", None)
            total += module.out_features * module.in_features
            total += 0 if bias is None else bias.numel()
        elif isinstance(module, Bank):
            inside |= set(module.parameters())
            total += module.experts * module.out_features * module.in_features
    shared = set() if block.weights is None else set(block.weights.parameters())
    return total + sum(p.numel() for p in set(block.parameters()) - inside - shared)


def _part(visit: Visit, cost: Cost) -> PartReport:
    block = visit.block
    names = [type(part).__name__ for part in (block.attention, block.ffn) if part is not None]
    return PartReport(
        path=visit.path,
        name=" + ".join(names) or "empty block",
        shape=", ".join(shapes(block)),
        parameters=sum(p.numel() for p in block.parameters()),
        uses=1,
        cost=cost,
    )


def shapes(part: nn.Module) -> list[str]:
    """The matrices of a part as `name ROWSxCOLUMNS`; for a bank, experts first."""
    found = []
    for name, module in part.named_modules():
        if isinstance(module, (Projection, Bank)):
            sides = [module.out_features, module.in_features]
            if isinstance(module, Bank):
                sides.insert(0, module.experts)
            found.append(f"{name.rsplit('.', 1)[-1]} {'x'.join(map(str, sides))}")
    return found


def _head_part(model: LanguageModel, cost: Cost) -> PartReport:
    vocabulary, width = model.head_weight.shape
    return PartReport(
        path="head",
        name="embedding = head" if model.head is None else "embedding, head",
        shape=f"{vocabulary}x{width}",
        parameters=sum(
            {p: p.numel() for p in (model.embedding.weight, model.head_weight)}.values()
        ),
        uses=1,
        cost=cost,
    )
