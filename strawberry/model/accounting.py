"""The cost report of a model, counted on the meta device.

FLOPs are those of matrix products (two for each multiply-add), by torch's counter. A causal
attention is counted in full, not halved. Elementwise work is not counted. Equal blocks are counted
once, so a model of any depth takes the time of its distinct parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from strawberry.contracts import OptimizerSite, SourcedWeight, State
from strawberry.model.blame import blaming
from strawberry.model.build import build
from strawberry.model.counting import Cost, CostMeter
from strawberry.model.gathering import gather
from strawberry.model.loop_cost import loop_cost
from strawberry.model.objective_cost import embedding_cost, objective_cost, trained
from strawberry.model.risks import risks
from strawberry.model.stack import BlockNode
from strawberry.model.visiting import BlockUses

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.model.recursion import Recursion
    from strawberry.model.stack import BlockUse
    from strawberry.recipe.spec import Recipe


@dataclass(frozen=True, slots=True)
class PartReport:
    """A line of the report: a distinct part of the model, and its number of uses."""

    path: str
    name: str
    shape: str
    parameters: int
    uses: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class CostReport:
    """The cost report of a recipe's model.

    Attributes:
        parameters: unique parameters, by kind (`embedding`, `matrix`, `vector`, ...).
        effective_parameters: parameters if every use of a block had its own dense weights.
        depth: block uses, unrolled.
        unique_depth: number of blocks with their own weights.
        flops_forward_per_token: FLOPs for each token, over a sequence of `block_size`; work done
            once in a pass is divided among the tokens of a micro-batch.
        flops_training_per_token: the same for forward and backward together.
        batch_tokens: tokens in a micro-batch of the recipe.
        activation_bytes: bytes saved for the backward pass of a micro-batch.
        activation_once_bytes: the part of them that does not depend on the number of sequences.
        dtype: the recipe's compute dtype; activations count as its autocast saves them.
        casts: bytes of autocast's copies of parameters in that dtype, by parameter name, held
            through a pass.
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
    dtype: str = "float32"
    casts: dict[str, int] = field(default_factory=dict, repr=False)
    parts: list[PartReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def total_parameters(self) -> int:
        """Unique parameters of all kinds."""
        return sum(self.parameters.values())

    @property
    def cast_bytes(self) -> int:
        """Bytes of the copies of parameters in a pass in `dtype`."""
        return sum(self.casts.values())


def account(recipe: Recipe, model: LanguageModel | None = None) -> CostReport:
    """Count the recipe's model; `model`, if given, is the same one on the meta device.

    For bfloat16, saved bytes are counted with fake CPU tensors under autocast, because the meta
    device has none. CUDA's autocast computes a few more functions in float32, such as exponentials.
    Raises RecipeError if a plugin's component can't run there.
    """
    with blaming(recipe):
        report = _account(recipe, model if model is not None else build(recipe, "meta"))
        return report if computes_in(recipe) == torch.float32 else _narrowed(recipe, report)


def computes_in(recipe: Recipe) -> torch.dtype:
    """The dtype that a recipe names; with `auto` that of the named device, float32 without one."""
    train = recipe.train
    # On CUDA alone `auto` is bfloat16, as in training: other devices do what every torch can.
    wide = train.dtype == "float32" or (train.dtype == "auto" and train.device[:4] != "cuda")
    return torch.float32 if wide else torch.bfloat16


def passes_of(recipe: Recipe) -> int:
    """How many gradients of its batch each step takes: see `OptimizerSource.passes`."""
    sources = [spec.component.construct(OptimizerSite()) for spec in recipe.optimizer]
    return max((source.passes for source in sources), default=1)


def _narrowed(recipe: Recipe, report: CostReport) -> CostReport:
    """The report with bytes in the recipe's dtype."""
    with FakeTensorMode():
        kept = _account(recipe, build(recipe), computes_in(recipe))
    return replace(
        report,
        dtype=kept.dtype,
        activation_bytes=kept.activation_bytes,
        activation_once_bytes=kept.activation_once_bytes,
        casts=kept.casts,
        parts=[
            replace(
                part,
                cost=replace(
                    part.cost,
                    saved_bytes=other.cost.saved_bytes,
                    saved_once_bytes=other.cost.saved_once_bytes,
                    written_bytes=other.cost.written_bytes,
                ),
            )
            for part, other in zip(report.parts, kept.parts, strict=True)
        ],
    )


def _account(
    recipe: Recipe, model: LanguageModel, dtype: torch.dtype = torch.float32
) -> CostReport:
    spec = recipe.model
    meter = CostMeter(model.parameters(), dtype)
    recompute = recipe.train.checkpoint_activations
    visits = BlockUses(model, spec.block_size, meter, recompute=recompute)
    parts: dict[int, PartReport] = {}
    total, once = Cost(), visits.once
    objective = objective_cost(model, recipe, meter)
    largest, batch = Cost(), recipe.train.batch_size
    for visit in visits.every:
        cost = visits.cost(visit)
        total += cost
        largest = max(largest, cost, key=lambda one: batch * one.saved_bytes + one.saved_once_bytes)
        line = parts.get(id(visit.block))
        parts[id(visit.block)] = replace(line, uses=line.uses + 1) if line else _part(visit, cost)
    outside = objective.cost
    for recursion in model.stack.recursions():
        if recursion.router is not None:
            outside += _router_cost(recursion, spec.block_size, spec.n_embd, meter)
        if recursion.loop is not None:
            outside += loop_cost(recursion, recursion.loop, model, spec.block_size, meter)
    total = trained(total + embedding_cost(model, spec.block_size, meter), objective) + outside
    kinds: dict[str, int] = {}
    for info in model.parameter_infos():
        kinds[info.kind] = kinds.get(info.kind, 0) + info.parameter.numel()
    dense = sum(p.numel() for name, p in model.named_parameters() if "stack" not in name)
    dense -= sum(p.numel() for p in model.weights.parameters())
    tokens = batch * spec.block_size
    kept, kept_once = total.saved_bytes, total.saved_once_bytes + once.saved_bytes
    if recompute:  # what enters each block, and one block's inside
        kept = total.written_bytes + largest.saved_bytes + outside.saved_bytes
        kept_once = largest.saved_once_bytes + once.saved_bytes
    names = {parameter: name for name, parameter in model.named_parameters()}
    return CostReport(
        name=recipe.name,
        block_size=spec.block_size,
        parameters=kinds,
        effective_parameters=dense + sum(_dense_parameters(v.block) for v in visits.every),
        depth=len(visits.every),
        unique_depth=len(parts),
        flops_forward_per_token=total.flops_forward / spec.block_size + once.flops_forward / tokens,
        flops_training_per_token=passes_of(recipe)
        * (total.flops_training / spec.block_size + once.flops_training / tokens),
        cache_bytes_per_token=total.cache_bytes_per_token,
        cache_fixed_bytes=total.cache_fixed_bytes,
        batch_tokens=tokens,
        activation_bytes=kept * batch + kept_once,
        activation_once_bytes=kept_once,
        dtype=str(dtype).removeprefix("torch."),
        casts={names[parameter]: nbytes for parameter, nbytes in meter.casts.items()},
        parts=[*parts.values(), _head_part(model, objective.cost)],
        warnings=risks(recipe, model),
    )


def _router_cost(recursion: Recursion, length: int, width: int, meter: CostMeter) -> Cost:
    """The cost of a recursion's router, and of the cache that records its choices."""
    router = recursion.router
    assert router is not None
    device = next(iter(meter.parameters.values())).device
    flops = saved = entering = 0
    carried: State = {}
    shares = list(router.shares())
    asked = [1.0, *shares]  # those that ran the step before
    for step, share in zip(range(recursion.steps), asked, strict=False):
        tokens, go = (max(1, int(part * length + 1e-9)) for part in (share, shares[step]))
        x = torch.empty(1, length, width, device=device)
        carried = {name: kept[:, :tokens] for name, kept in carried.items()}
        # Places for the batch's one sequence; which ones they are costs nothing.
        asking, going = (torch.zeros(1, n, dtype=torch.long, device=device) for n in (tokens, go))

        def run(
            x: Tensor,
            step: int = step,
            asking: Tensor = asking,
            going: Tensor = going,
            before: State = carried,
        ) -> Tensor:
            """Choose, gather and scatter tokens, as the recursion does."""
            routed = router.route(gather(x, asking), step, before, length, None)
            taken = gather(x, going)
            inside = {name: gather(kept, going) for name, kept in routed.carried.items()}
            after = router.merge(taken, torch.empty_like(taken).requires_grad_(), step, inside)
            return x.scatter(1, going[..., None].expand_as(after), after.to(x.dtype))

        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            after = router.route(x[:, :tokens], step, carried, length, None).carried
        flops += counter.get_total_flops()
        saved += meter.saved_bytes(run, x)
        entering += go * width * x.element_size()
        carried = after
    return Cost(
        flops_forward=flops,
        flops_training=3 * flops,
        saved_bytes=saved,
        written_bytes=entering,
        cache_fixed_bytes=8 * recursion.steps,
        cache_bytes_per_token=8 * recursion.steps,
    )


def _dense_parameters(block: BlockNode) -> int:
    """The block's parameters if each of its projections were dense and its own."""
    inside: set[nn.Parameter] = set()
    total = 0
    for _, weight in _weights(block):
        inside |= set(weight.parameters())
        total += math.prod(weight.request.shape) + weight.request.bias * weight.out_features
    shared = set() if block.weights is None else set(block.weights.parameters())
    return total + sum(p.numel() for p in set(block.parameters()) - inside - shared)


def _weights(part: nn.Module) -> Iterator[tuple[str, SourcedWeight]]:
    """The projections and banks of a part by name, without those inside of others."""
    inside: set[nn.Module] = set()
    for name, module in part.named_modules():
        if isinstance(module, SourcedWeight) and module not in inside:
            inside.update(module.modules())
            yield name, module


def _part(visit: BlockUse, cost: Cost) -> PartReport:
    block = visit.block
    names = [type(part).__name__ for part in block.modules_of_parts]
    return PartReport(
        path=visit.path,
        name=" + ".join(names) or "empty block",
        shape=", ".join(shapes(block)),
        parameters=sum(p.numel() for p in block.parameters()),
        uses=1,
        cost=cost,
    )


def shapes(part: nn.Module) -> list[str]:
    """The matrices of a part as `name ROWSxCOLUMNS`; for a bank, experts first.

    If one has several among its rows, they follow: `qkv 128x64 (q 64, k 32, v 32)`.
    """
    lines = []
    for name, weight in _weights(part):
        sides = "x".join(map(str, weight.request.shape))
        text = f"{name.rsplit('.', 1)[-1]} {sides}"
        inside = ", ".join(f"{part.name} {part.rows}" for part in weight.parts.parts)
        lines.append(f"{text} ({inside})" if len(weight.parts.parts) > 1 else text)
    return lines


def _head_part(model: LanguageModel, cost: Cost) -> PartReport:
    vocabulary, width = model.head_weight.shape
    return PartReport(
        path="head",
        name="embedding = head" if model.head is None else "embedding, head",
        shape=f"{vocabulary}x{width}",
        parameters=sum(p.numel() for p in model.tables()),
        uses=1,
        cost=cost,
    )
