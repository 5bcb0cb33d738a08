"""The cost of each block use, measured once for equal uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from strawberry.contracts import SharedKeys, State, Stream, Use, WeightSource, components
from strawberry.model.counting import Cost, CostMeter
from strawberry.model.stack import CacheShape

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.model.stack import BlockUse

Derived = dict[Any, list[Tensor]]
"""Values that weight sources compute once in a pass, by key."""


class BlockUses:
    """The uses of a model's blocks, over sequences of `length` tokens.

    With `recompute`, a block saves only the result of what a weight source derives, which later
    blocks use. It recomputes the derivation, from step 0 on, and holds it while its gradients are
    computed.
    """

    def __init__(
        self, model: LanguageModel, length: int, meter: CostMeter, *, recompute: bool = False
    ) -> None:
        self.model = model
        self.length = length
        self.meter = meter
        self.recompute = recompute
        self.every: Sequence[BlockUse] = model.visits()
        self.once, self.derived = self._prepared()
        self._known: dict[str, Cost] = {}
        self._casts: dict[str, list[str]] = {}
        self._left: dict[Any, Any] = {}  # by blocks whose uses differ, for later ones of the pass

    def _prepared(self) -> tuple[Cost, Derived]:
        """Values that weight sources compute once in a pass: their cost and the result."""
        model, once = self.model, Derived()

        def run(y: Tensor) -> Tensor:
            for visit in self.every:
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
        if any(type(visit.weights).prepare is not WeightSource.prepare for visit in self.every):
            cost = self.meter.count(run, torch.empty(1, device=model.device), between=once.clear)
            if self.recompute:  # the result alone is kept from block to block
                cost = replace(cost, saved_bytes=_bytes_of(once))
        return cost, {
            key: [tensor.detach().requires_grad_() for tensor in values]
            for key, values in once.items()
        }

    def cost(self, visit: BlockUse) -> Cost:
        """The cost of one use of a block, counted once for equal blocks.

        A routed use is counted for its intended share of tokens.
        """
        block, casts = visit.block, self.meter.casts
        tokens = max(1, int(visit.share * self.length + 1e-9))
        same = visit.weights.same_cost and not _differs(visit)
        key = block.key if same else f"{visit.path} {visit.steps}"
        key = f"{key} {tokens} {visit.later} {visit.steps if self.recompute else ''}"
        if key not in self._known:
            self._known[key] = self._count(visit, tokens)
            self._casts[key] = [name for name, p in block.named_parameters() if p in casts]
        for name in self._casts[key]:  # an equal block has parameters of its own
            parameter = block.get_parameter(name)
            casts[parameter] = parameter.numel() * self.meter.dtype.itemsize
        return self._known[key]

    def _count(self, visit: BlockUse, tokens: int) -> Cost:
        model, block, meter = self.model, visit.block, self.meter
        width, device = model.n_embd, model.device
        use = Use(
            positions=torch.arange(tokens, device=device),
            offset=0,
            positional=model.positional,
            weights=visit.weights,
            residual=model.residual,
            steps=visit.steps,
            tokens=torch.zeros(1, tokens, dtype=torch.long, device=device),
            inputs=self._inputs(1, tokens),
            once=self.derived,
        )
        if visit.later:
            use = self._with_keys(visit, use)
        differs = _differs(visit)
        left = self._left if differs and tokens == self.length else {}

        def run(y: Tensor, use: Use = use) -> Tensor:
            if differs:  # no run leaves anything to the next one
                use = replace(use, memo={**use.memo, **left})
            # A longer history adds a few numbers a token: what was written is kept already.
            stream, _ = block(model.residual.begin(y, use), use, 0)
            return model.residual.end(stream, use)

        x = torch.empty(1, tokens, width, device=device)
        given = [tensor for values in self.derived.values() for tensor in values]
        given += [leaf for leaf in tree_leaves(left) if isinstance(leaf, Tensor)]
        cost = meter.count(run, x, given)
        if self.recompute:
            given, use = [], replace(use, memo={}, once={})
            cost = replace(cost, saved_bytes=meter.saved_bytes(lambda y: run(y, use), x))
        once = 0
        # Where there are two sequences, what is kept for both counts once.
        if not visit.later and not left:
            twice = torch.zeros(2, tokens, dtype=torch.long, device=device)
            once_each = {} if self.recompute else self.derived
            inputs = self._inputs(2, tokens)
            both = replace(use, memo={}, tokens=twice, inputs=inputs, once=once_each)
            two = meter.saved_bytes(lambda y: run(y, both), x.new_empty(2, *x.shape[1:]), given)
            once = max(0, 2 * cost.saved_bytes - two)
        short, long = (_state_bytes(visit, n * self.length, device) for n in (1, 2))
        slope = (long - short) // self.length
        use = replace(use, memo={**use.memo, **left})
        with torch.set_grad_enabled(differs), meter.autocast():
            stream = model.residual.begin(x, use)
            after = block(stream, use, 0)[0]
        if differs:
            self._left = tree_map_only(
                Tensor, lambda t: t.detach().requires_grad_(t.requires_grad), use.memo
            )
        return replace(
            cost,
            saved_bytes=cost.saved_bytes - once,
            saved_once_bytes=once,
            written_bytes=_new_bytes(after, stream),
            cache_fixed_bytes=short - slope * self.length,
            cache_bytes_per_token=slope,
        )

    def _inputs(self, batch: int, tokens: int) -> dict[str, Tensor]:
        """What the embedding gives blocks beside the stream, as constants."""
        model = self.model
        if not model.embedding.input_widths():
            return {}
        ids = torch.zeros(batch, tokens, dtype=torch.long, device=model.device)
        with torch.no_grad():
            use = Use(torch.arange(tokens, device=model.device), 0, model.positional, model.weights)
            return dict(model.embedding.inputs(ids, model.embed(ids, use), use))

    def _with_keys(self, visit: BlockUse, use: Use) -> Use:
        """The use of a later step, with the keys of a first one for all tokens."""
        model, length = self.model, self.length
        store: dict[int, State] = {}
        every = torch.arange(length, device=model.device)
        first = replace(
            use,
            positions=every,
            steps=(*use.steps[:-1], 0),
            memo={},
            tokens=torch.zeros(1, length, dtype=torch.long, device=model.device),
            inputs=self._inputs(1, length),
            shared=SharedKeys(store, 0, later=False, tokens=length),
        )
        x = torch.empty(1, length, model.n_embd, device=model.device)
        with torch.no_grad(), self.meter.autocast():
            visit.block(model.residual.begin(x, first), first, 0)
        places = None if len(use.positions) == length else use.positions[None]
        return replace(use, shared=SharedKeys(store, 0, later=True, tokens=length, places=places))


def _differs(visit: BlockUse) -> bool:
    """Whether a part of the block costs otherwise than in other uses of equal blocks."""
    return not all(part.same_cost for part in components(visit.block))


def _bytes_of(derived: Derived) -> int:
    """Bytes of derived values, each tensor once."""
    storages = [tensor.untyped_storage() for values in derived.values() for tensor in values]
    return sum({each._cdata: each.nbytes() for each in storages}.values())  # noqa: SLF001 (identity)


def _state_bytes(visit: BlockUse, length: int, device: torch.device) -> int:
    room = CacheShape(1, length, device, torch.float32)
    states = visit.block.new_states(room, visit.weights, visit.later)
    return sum(t.nbytes for state in states for t in state.values())


def _new_bytes(after: Stream, before: Stream) -> int:
    """Bytes of a block's contribution to the stream."""
    old, new = (
        {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in tree_leaves(stream)}  # noqa: SLF001 (identity)
        for stream in (before, after)
    )
    return sum(nbytes for storage, nbytes in new.items() if storage not in old)
