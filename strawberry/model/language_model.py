"""The language model: token ids to logits, through any stack.

`x = embed(idx) [+ positions] [-> norm]; x = stack(x); logits = norm(x) W_head^T`
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from strawberry.contracts import (
    Aux,
    Embedding,
    Norm,
    Objective,
    ParameterInfo,
    Parametrization,
    Positional,
    Prediction,
    Residual,
    Use,
    Watch,
    WeightSource,
    components,
    keeps_state,
)
from strawberry.errors import StrawberryError
from strawberry.model.batch import Loss, ModelBatch, RowNats, loss_of, measured
from strawberry.model.cache import Cache
from strawberry.model.loss import head_logits
from strawberry.model.own import RunTeacher
from strawberry.model.parameters import infos_of
from strawberry.model.stack import BlockNode, BlockUse, CacheShape, Stack, dropped
from strawberry.model.weighing import Wide

Asked: TypeAlias = tuple[bool, bool, int]
"""The states after blocks and steps that an objective sees, and its gradient cuts."""
NOTHING: Asked = (False, False, 0)


class Pass(NamedTuple):
    """The result of a pass below the head: the fields of `States`, and the terms of components."""

    hidden: Tensor
    aux: Aux
    blocks: tuple[Tensor, ...] = ()
    steps: tuple[Tensor, ...] = ()


class LanguageModel(nn.Module):
    """An ordinary module: `model(idx)` gives logits (B, T, V) from ids (B, T).

    `strawberry.build(recipe)` creates it from finished parts. With `head` None the embedding's
    table is also the output head, one tensor that needs no tying after loading.

    Attributes:
        vocab_size: number of token ids V.
        n_embd: model width C.
        objective: training objective; the builder sets it last.
        parametrization: how its parameters are stepped; None: all alike.
        multipliers: factors on the embeddings, and on what the head reads.
        teachers: models that the objective learns from.
        carried: what the objective keeps between passes over one batch; see `Batch.carried`.
        separator: token id that begins a document, if attention is restricted to documents; else
            None.
        drawable: generation samples ids below this only; None for all. A vocabulary may exceed its
            tokenizer's, whose text never has the others.
        gaps: ids below `drawable` that are not sampled either.
    """

    def __init__(
        self,
        *,
        embedding: Embedding,
        vocab_size: int,
        n_embd: int,
        embedding_norm: Norm | None,
        positional: Positional,
        weights: WeightSource,
        stack: Stack,
        norm: Norm,
        head: nn.Linear | None,
        dropout: float,
        block_size: int,
        logit_softcap: float | None,
        residual: Residual,
        parametrization: Parametrization | None = None,
        wide: Wide | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.vocab_size = vocab_size
        self.n_embd = n_embd
        self.embedding_norm = embedding_norm
        self.positional = positional
        self.weights = weights
        self.stack = stack
        self.norm = norm
        self.head = head
        self.dropout = nn.Dropout(dropout)
        self.block_size = block_size
        self.logit_softcap = logit_softcap
        self.residual = residual
        self.parametrization = parametrization
        self.wide = wide
        self.multipliers = 1.0, 1.0
        self.objective: Objective
        self.teachers: list[RunTeacher] = []
        self.carried: dict[str, Tensor] = {}
        self.separator: int | None = None
        self.drawable: int | None = None
        self.gaps: tuple[int, ...] = ()
        self._gaps_at_hand: tuple[tuple[int, ...], Tensor] | None = None
        self._limit = self.limit()

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.embedding.parameters()).device

    @property
    def head_weight(self) -> Tensor:
        """The output head (V, C), or (V, E) for the table of an embedding of that width."""
        if self.head is not None:
            return self.head.weight
        table = self.embedding.table
        assert table is not None, "the builder refuses a tied head then"
        return table

    def tables(self) -> set[nn.Parameter]:
        """The parameters of the embedding and of the head."""
        return {*self.embedding.parameters(), *(self.head.parameters() if self.head else ())}

    def forward(self, idx: Tensor, cache: Cache | None = None) -> Tensor:
        """Ids (B, T) -> logits (B, T, V); with a cache, continues after the tokens in it."""
        return self.head_logits(self.run(idx, cache).hidden)

    def head_logits(self, h: Tensor) -> Tensor:
        """Hidden states (..., C) -> logits (..., V)."""
        return head_logits(self.before_head(h), self.head_weight, self.logit_softcap)

    def before_head(self, h: Tensor) -> Tensor:
        """Hidden states (..., C) as the head reads them."""
        h = h if self.multipliers[1] == 1 else h * self.multipliers[1]
        return self.embedding.before_head(h) if self.head is None else h

    def embed(self, idx: Tensor, use: Use) -> Tensor:
        """Ids (B, T) -> embeddings (B, T, C), before positions and norm."""
        if use.cache is not None and keeps_state(self.embedding):
            use = replace(use, state=use.cache[-1])
        x: Tensor = self.embedding(idx, use)
        return x if self.multipliers[0] == 1 else x * self.multipliers[0]

    def drawn(self, logits: Tensor) -> Tensor:
        """The logits (..., N) of the N ids that may be sampled, of (..., V); gaps are -inf."""
        logits = logits[..., : self.drawable]
        if not self.gaps:
            return logits
        kept = self._gaps_at_hand
        if kept is None or kept[0] is not self.gaps or kept[1].device != logits.device:
            # Once, not for each token: an accelerator would wait for each copy.
            kept = self.gaps, torch.tensor(self.gaps, device=logits.device)
            self._gaps_at_hand = kept
        return logits.index_fill(-1, kept[1], -torch.inf)

    def hidden(self, idx: Tensor) -> Tensor:
        """Ids (B, T) -> hidden states (B, T, C), from which the head computes logits one by one."""
        return self.run(idx).hidden

    def trunk(self, idx: Tensor, cache: Cache | None = None) -> tuple[Tensor, Aux]:
        """Everything below the head: ids (B, T) -> hidden (B, T, C), and components' terms."""
        passed = self.run(idx, cache)
        return passed.hidden, passed.aux

    def run(
        self,
        idx: Tensor,
        cache: Cache | None = None,
        asked: Asked = NOTHING,
        embedded: Tensor | None = None,
    ) -> Pass:
        """Everything below the head, with the states in between that are asked for.

        `embedded` (B, T, C) takes the place of the embeddings of `idx`.
        """
        T = idx.shape[1]
        use = self.use(idx, cache)
        watch = Watch([] if asked[0] else None, [] if asked[1] else None, asked[2])
        x = self.embed(idx, use) if embedded is None else embedded
        if inputs := self.embedding.inputs(idx, x, use):
            use = replace(use, inputs=inputs)
        if "embedding" in self.positional.places:
            placed = self.positional.embed(use.positions.flatten())
            x = x + placed.view(*use.positions.shape, -1).to(x.dtype)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = dropped(self.dropout, x)
        stream, aux = self.stack(
            self.residual.begin(x, use), replace(use, watch=watch) if any(asked) else use, 0
        )
        if cache is not None:
            cache.offset += T
        hidden = self.norm(self.residual.end(stream, use))
        return Pass(hidden, aux, tuple(watch.blocks or ()), tuple(watch.steps or ()))

    def use(self, idx: Tensor, cache: Cache | None = None) -> Use:
        """The use that a pass over ids (B, T) begins with; raises StrawberryError if too long."""
        T = idx.shape[1]
        offset = 0 if cache is None else cache.offset
        self._check_length(offset + T, cache)
        positions = torch.arange(offset, offset + T, device=idx.device)
        if self.separator is not None and cache is None:
            # A document has the positions that it would have alone.
            begins = torch.where(idx == self.separator, positions, 0).cummax(1).values
            positions = positions - begins
        return Use(
            positions=positions,
            offset=offset,
            positional=self.positional,
            weights=self.weights,
            residual=self.residual,
            once=cache.once if cache is not None and not torch.is_grad_enabled() else {},
            cache=None if cache is None else cache.states,
            tokens=idx,
            documents=self._documents(idx, cache),
        )

    def use_of_blocks(self, idx: Tensor) -> Use:
        """The use of a pass over ids (B, T), with what the embedding gives blocks to read."""
        use = self.use(idx)
        if not self.embedding.input_widths():
            return use
        return replace(use, inputs=self.embedding.inputs(idx, self.embed(idx, use), use))

    def compile_trunk(self) -> None:
        """Compile everything below the head into one graph; generation with a cache stays eager.

        The head's chunked loss is not compiled: it consists of a few large kernels.
        """
        eager, compiled = self.run, torch.compile(self.run)

        def run(idx: Tensor, cache: Cache | None = None, *given: Any) -> Pass:
            return (compiled if cache is None else eager)(idx, cache, *given)

        self.run = run  # type: ignore[method-assign, assignment]

    def compile_blocks(self) -> None:
        """Compile each block by itself, equal blocks once; generation with a cache stays eager.

        Compilation takes the time of the distinct blocks, for any depth of the stack.
        """
        blocks = [module for module in self.modules() if isinstance(module, BlockNode)]
        # A graph for each kind of block, with and without gradients, first and later in a pass.
        limit = torch._dynamo.config.recompile_limit  # noqa: SLF001 (where torch documents it)
        torch._dynamo.config.recompile_limit = max(limit, 4 * len(blocks))  # noqa: SLF001
        for block in blocks:
            block.compile_forward()

    def loss(
        self, idx: Tensor, targets: Tensor, count: Tensor | None = None, *, share: float = 1.0
    ) -> Loss:
        """The objective's result for ids and `targets` (B, T); negative ones are ignored.

        `total` has the components' auxiliary losses too. Where these rows are a part of a step,
        `count` is what sums over targets are divided by, and `share` is their share of the step's
        tokens, by which auxiliary losses are weighed: the totals of all parts then add up to the
        loss of the step.
        """
        return loss_of(ModelBatch(self, idx, targets, count, share))

    def measure(
        self, idx: Tensor, targets: Tensor, rows: Tensor | None = None, *, answers: bool = False
    ) -> RowNats:
        """The evaluation of ids and `targets` (B, T): the nats of each sequence.

        `rows` (B,) are the numbers of the rows, 0 and on if not given: what noise an objective
        draws is theirs. With `answers`, right answers are counted.
        """
        rows = torch.arange(len(idx), device=idx.device) if rows is None else rows
        return measured(ModelBatch(self, idx, targets, rows=rows), answers=answers)

    def predictions(self, idx: Tensor, targets: Tensor) -> list[Prediction]:
        """The evaluation's scores of ids and `targets` (B, T), the rows from 0 on."""
        rows = torch.arange(len(idx), device=idx.device)
        return list(self.objective.predictions(ModelBatch(self, idx, targets, rows=rows)))

    def _documents(self, idx: Tensor, cache: Cache | None) -> Tensor | None:
        """The document number of each token, (B, T): a separator begins the next document."""
        if self.separator is None or cache is not None:
            return None
        return (idx == self.separator).cumsum(1)

    def set_steps(self, steps: int) -> None:
        """Let every outermost `recur` run this many steps, more or fewer than in training.

        Raises StrawberryError without recursion, or if a router was trained for fewer steps.
        """
        outermost = self.stack.outermost()
        if not outermost:
            raise StrawberryError("this model has no recursion, so it has only one depth")
        try:
            for recursion in outermost:
                recursion.set_steps(steps)
        except ValueError as error:
            raise StrawberryError(str(error)) from error

    def after_step(self) -> None:
        """Call `after_step()` of every component, once: after each optimizer step."""
        for component in components(self):
            component.after_step()

    def new_cache(self, batch: int, length: int, dtype: torch.dtype | None = None) -> Cache:
        """An empty cache for `length` tokens of `batch` sequences.

        Raises StrawberryError if a mixer has no decoding state.
        """
        self._check_length(length, None)
        for component in components(self):
            if not component.cacheable:
                name = type(component).__name__
                raise StrawberryError(f"{name} has no decoding state; generate without a cache")
        dtype = dtype if dtype is not None else next(self.embedding.parameters()).dtype
        room = CacheShape(batch, length, self.device, dtype)
        states = list(self.stack.new_states(room, self.weights))
        if keeps_state(self.embedding):
            states.append(self.embedding.new_state(*room))
        return Cache(states, length)

    def parameter_infos(self) -> list[ParameterInfo]:
        """Every parameter once, with its name, its kind and its matrices."""
        return infos_of(self, self.parametrization, None if self.wide is None else self.wide.shapes)

    def _repr_html_(self) -> str:
        """Its tree of blocks, for a notebook."""
        from strawberry.model.drawn import drawn

        return drawn(self)

    def visits(self) -> list[BlockUse]:
        """All block uses, unrolled, in order."""
        return list(self.stack.visits((), self.weights, "stack"))

    def limit(self) -> int | None:
        """Maximum sequence length, or None for no limit."""
        limits = [component.limit() for component in components(self)]
        return min((limit for limit in limits if limit is not None), default=None)

    def _check_length(self, length: int, cache: Cache | None) -> None:
        limit = self._limit
        if limit is not None and length > limit:
            raise StrawberryError(f"{length} tokens exceed the {limit} positions of this model")
        if cache is not None and length > cache.length:
            raise StrawberryError(f"{length} tokens exceed the cache's {cache.length}")
