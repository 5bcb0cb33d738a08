"""Decode a batch of sequences token by token, with a cache.

Sequences of different lengths proceed in step, from the end of the shortest one: tokens that a
longer one already has are taken, not sampled. All rows are then at one position, so any mixer with
a cache can decode the batch, without padding or a mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.model.risks import declares, is_causal

if TYPE_CHECKING:
    from strawberry.generation.sampling import Sampling
    from strawberry.model.language_model import LanguageModel


def without_gradients(model: LanguageModel) -> Callable[[], AbstractContextManager[object]]:
    """A context without gradients; inference mode if no parameter requires them."""
    wanted = any(parameter.requires_grad for parameter in model.parameters())
    return torch.no_grad if wanted else torch.inference_mode


class Sequences:
    """B sequences of ids, and their decoding cache.

    If the model's positions run out, the oldest tokens are dropped: the cache is built again from
    the last half. A non-causal model never has a cache: each new token changes earlier outputs, so
    the whole sequence is computed again.

    Args:
        model: a model in eval mode.
        ids: (B, T) initial ids.
        capacity: maximum length.
        use_cache: False computes the whole sequence each time.
    """

    def __init__(
        self, model: LanguageModel, ids: Tensor, capacity: int, *, use_cache: bool = True
    ) -> None:
        self.model = model
        limit = model.limit()
        self.room = capacity if limit is None else min(capacity, limit)
        self.use_cache = use_cache and declares(model, "cacheable") and is_causal(model)
        B, T = ids.shape
        self._ids = torch.empty(B, capacity, dtype=torch.long, device=ids.device)
        self._ids[:, :T] = ids
        self._begin, self._end = max(0, T - self.room), T
        self._fresh = self._begin  # the first one that the cache has not seen
        self._without_gradients = without_gradients(model)
        with self._without_gradients():
            self._cache = model.new_cache(B, self.room) if self.use_cache else None

    @property
    def ids(self) -> Tensor:
        """All ids so far, (B, T)."""
        return self._ids[:, : self._end]

    def logits(self) -> Tensor:
        """Logits (B, V) of the next token, over the V ids that may be sampled."""
        with self._without_gradients():
            return self.model.drawn(self._logits())

    def _logits(self) -> Tensor:
        held = 0 if self._cache is None else self._cache.offset
        if max(self._end - self._begin, held + self._end - self._fresh) > self.room:
            self._fresh = self._begin = self._end - max(1, self.room // 2)
            if self._cache is not None:
                self._cache = self.model.new_cache(len(self._ids), self.room)
        if self._cache is None:
            return self.model(self._ids[:, self._begin : self._end])[:, -1]
        hidden, _ = self.model.trunk(self._ids[:, self._fresh : self._end], self._cache)
        self._fresh = self._end
        return self.model.head_logits(hidden[:, -1])

    def append(self, chosen: Tensor) -> None:
        """Append an id to each sequence, (B,)."""
        self._ids[:, self._end] = chosen
        self._end += 1

    def repeat(self, times: int) -> None:
        """Repeat each sequence and its cache this many times, side by side."""
        self._ids = self._ids.repeat_interleave(times, 0)
        if self._cache is not None:
            self._cache.repeat(times)


@torch.no_grad()
def sample_ids(
    model: LanguageModel,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: Sampling,
    generator: torch.Generator,
    *,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Yield new ids (B,), one step at a time, after `prompt` (B, T)."""
    capacity = prompt.shape[1] + max_new_tokens
    sequences = Sequences(model, prompt, capacity, use_cache=use_cache)
    for _ in range(max_new_tokens):
        chosen = sampling.choose(sequences.logits(), [generator], sequences.ids)
        sequences.append(chosen)
        yield chosen


@torch.no_grad()
def sample_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    *,
    samples: int = 1,
    use_cache: bool = True,
) -> Iterator[list[tuple[int, int]]]:
    """Yield new ids of several prompts, `samples` of each, as one batch.

    The common length of the prompts is read once for all samples.

    Args:
        model: a model in eval mode.
        prompts: ids to continue, none of them empty.
        max_new_tokens: maximum number of new tokens of each row.
        sampling: the sampling settings.
        generators: one for each row; a prompt's samples are adjacent rows.
        samples: number of rows of each prompt.
        use_cache: False computes the whole sequences each time.

    Yields:
        (row, id) pairs of the rows that got a new id in this step.
    """
    limit = model.limit()
    longest = max(map(len, prompts)) + max_new_tokens
    if limit is not None and longest > limit and len(set(map(len, prompts))) > 1:
        # Where a window slides depends on where a row began, so only equal lengths go in step.
        yield from _by_length(
            model, prompts, max_new_tokens, sampling, generators, samples, use_cache=use_cache
        )
        return
    rows = [prompt for prompt in prompts for _ in range(samples)]
    begin, end = min(map(len, rows)), max(map(len, rows)) + max_new_tokens
    start = torch.tensor([list(prompt[:begin]) for prompt in prompts], device=model.device)
    given = [torch.tensor(prompt[begin:], device=model.device) for prompt in rows]
    sequences = Sequences(model, start, end, use_cache=use_cache)
    for place in range(begin, end):
        logits = sequences.logits()
        if place == begin and samples > 1:
            logits = logits.repeat_interleave(samples, 0)
            sequences.repeat(samples)
        going = [row for row, prompt in enumerate(rows) if len(prompt) <= place]
        # Rows are taken one by one: a list of them would have to be copied to the device.
        every = len(going) == len(rows)
        here, ids = (
            tensor if every else torch.stack([tensor[row] for row in going])
            for tensor in (logits, sequences.ids)
        )
        chosen = sampling.choose(here, [generators[row] for row in going], ids)
        sequences.append(chosen if every else _among(going, chosen, place - begin, given))
        new = dict(zip(going, chosen.tolist(), strict=True))  # here alone the host waits
        yield [(row, new[row]) for row in going if place < len(rows[row]) + max_new_tokens]


def _by_length(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    samples: int,
    *,
    use_cache: bool,
) -> Iterator[list[tuple[int, int]]]:
    """The steps of `sample_batch`, with separate computations for prompts of different lengths."""
    groups = []
    for length in sorted(set(map(len, prompts))):
        chosen = [number for number, prompt in enumerate(prompts) if len(prompt) == length]
        rows = [number * samples + sample for number in chosen for sample in range(samples)]
        steps = sample_batch(
            model, [prompts[number] for number in chosen], max_new_tokens, sampling,
            [generators[row] for row in rows], samples=samples, use_cache=use_cache,
        )  # fmt: skip
        groups.append((rows, steps))
    for together in itertools.zip_longest(*(steps for _, steps in groups), fillvalue=()):
        yield [
            (rows[row], token)
            for (rows, _), step in zip(groups, together, strict=True)
            for row, token in step
        ]


def _among(going: Sequence[int], chosen: Tensor, place: int, given: Sequence[Tensor]) -> Tensor:
    """(B,) the sampled ids of active rows, and the given ids of the others."""
    ids = [ids[place : place + 1] for ids in given]
    for at, row in enumerate(going):
        ids[row] = chosen[at : at + 1]
    return torch.cat(ids)
