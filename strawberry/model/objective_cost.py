"""Cost above the stack: the head, and the objective with its own heads and blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from strawberry.contracts import HeadLoss, OwnBlock, States, keeps_state
from strawberry.model.batch import ModelBatch
from strawberry.model.build import build
from strawberry.model.counting import Cost, CostMeter
from strawberry.recipe import load_recipe

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe

HEAD_TOKENS = 64
"""Tokens that a head is counted for; it costs each the same."""


@dataclass(frozen=True, slots=True)
class ObjectiveCost:
    """The requirements of an objective.

    Attributes:
        cost: of embedding, last norm, heads, the objective's blocks and its teachers. Forward it is
            that of the model's head alone, as in evaluation.
        passes: how often it runs the stack in training.
        looks: how often without gradients beside.
    """

    cost: Cost
    passes: int
    looks: int


class _CountedBatch(ModelBatch):
    """A training batch whose states cost nothing: what is done with them is counted."""

    def __init__(self, model: LanguageModel, x: Tensor) -> None:
        ids = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
        super().__init__(model, ids, ids)
        self.x, self.training = x, True
        self.passes = self.looks = self.heads = 0

    def states(
        self,
        ids: Tensor | None = None,
        *,
        blocks: bool = False,
        steps: bool = False,
        cut: int = 0,
        embedded: Tensor | None = None,
    ) -> States:
        if torch.is_grad_enabled():
            self.passes += 1
        else:
            self.looks += 1
        n_blocks, n_steps = self.model.stack.watched()
        hidden = self.model.norm(self.x)
        return States(hidden, (self.x,) * (blocks * n_blocks), (self.x,) * (steps * n_steps))

    def cross_entropy(self, *given: Any, **options: Any) -> HeadLoss:
        self.heads += 1
        return super().cross_entropy(*given, **options)

    def over_logits(
        self, hidden: Tensor, each: Callable[..., Tensor], *given: Any, **options: Any
    ) -> Tensor:
        self.heads += 1
        return super().over_logits(hidden, each, *given, **options)


def objective_cost(model: LanguageModel, recipe: Recipe, meter: CostMeter) -> ObjectiveCost:
    """Count the objective over a sequence of `block_size`, on the device of the model."""
    length = recipe.model.block_size
    load_for_counting(model, recipe)
    own = any(isinstance(module, OwnBlock) for module in model.objective.modules())
    tokens = length if own or model.teachers else HEAD_TOKENS
    width = model.n_embd
    seen: list[_CountedBatch] = []

    def learn(x: Tensor) -> Tensor:
        seen.append(_CountedBatch(model, x))
        return model.objective(seen[-1]).total

    cost = meter.count(learn, torch.empty(1, tokens, width, device=model.device))
    batch = seen[-1]
    # The gradient of the head's matrix is kept from each loss on, once, however many tokens; one
    # of them is the gradient that is counted with the parameters.
    matrix = model.head_weight.numel() * 4
    per_token = max(0, cost.saved_bytes - batch.heads * matrix)
    forward = 2 * model.head_weight.numel() * length + _before_head(model) * length
    cost = Cost(
        flops_forward=forward,
        flops_training=cost.flops_training * length // tokens,
        saved_bytes=per_token * length // tokens,
        saved_once_bytes=max(0, batch.heads - 1) * matrix,
    )
    return ObjectiveCost(cost, batch.passes, batch.looks)


def _before_head(model: LanguageModel) -> int:
    """FLOPs for each token of what a tied head does before its matrix."""
    x = torch.empty(1, model.n_embd, device=model.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.before_head(x)
    return int(counter.get_total_flops())


def embedding_cost(model: LanguageModel, length: int, meter: CostMeter) -> Cost:
    """The embedding over a sequence: the matrix products in it, and its decoding state."""
    ids = torch.zeros(1, length, dtype=torch.long, device=model.device)

    def run(x: Tensor) -> Tensor:
        use = model.use(ids)
        embedded = model.embed(ids, use)
        inputs = model.embedding.inputs(ids, embedded, use).values()
        return torch.cat([x + embedded, *(each.flatten(2) for each in inputs)], -1)

    cost = meter.count(run, torch.empty(1, length, model.n_embd, device=model.device))
    sizes = [0, 0]
    if keeps_state(model.embedding):
        for place in (0, 1):
            room = 1, (place + 1) * length, model.device, torch.float32
            sizes[place] = sum(t.nbytes for t in model.embedding.new_state(*room).values())
    each = (sizes[1] - sizes[0]) // length
    return replace(
        cost,
        saved_bytes=cost.saved_bytes if cost.flops_forward else 0,  # ids and rows else
        cache_bytes_per_token=each,
        cache_fixed_bytes=sizes[0] - each * length,
    )


def trained(cost: Cost, asked: ObjectiveCost) -> Cost:
    """The cost of the stack for an objective that runs it more than once."""
    training = asked.passes * cost.flops_training + asked.looks * cost.flops_forward
    return replace(cost, flops_training=training, saved_bytes=asked.passes * cost.saved_bytes)


def load_for_counting(model: LanguageModel, recipe: Recipe) -> None:
    """Give teachers models without values; raises RecipeError if a run isn't there."""
    for teacher in model.teachers:
        with recipe.objective.located():
            theirs = load_recipe(teacher.run, plugins=recipe.plugins)
            teacher.model = build(theirs, model.device).eval()
