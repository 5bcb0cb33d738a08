"""A run of Strawberry as a model of lm-evaluation-harness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from torch import Tensor, nn

from strawberry.contracts import Tokenizer, components
from strawberry.errors import StrawberryError
from strawberry.generation import LoadedRun, Sampling, load_run, refuse_noncausal, sample_batch
from strawberry_lm_eval.windows import Window, windows

Pair = tuple[tuple[str, str] | None, list[int], list[int]]
"""Texts of a request, None for a part of one, with the ids of its context and continuation."""
Answer = tuple[float, bool]
"""Log probability in nats, and whether greedy decoding gives the same ids."""


class StrawberryLM(TemplateLM):  # type: ignore[misc]
    """A model of the harness, for any recipe, tokenizer and recursion depth.

    Args:
        run: a run folder, or a loaded run.
        steps: recursion steps; None takes those of training.
        batch_size: sequences that are computed together. If a component's outputs depend on other
            sequences of a batch, each is computed by itself.
        max_length: the longest window, in tokens; None takes the recipe's `block_size`.
        add_bos_token: begin each context with the end-of-text token, as training documents begin.
            The harness's models do so only if their tokenizer does, so the default is not to.
        device: the device.
        average: name of an average of the weights that the run kept.
        best: load the checkpoint with the lowest validation loss.
        seed: seed of sampled text, where a task samples.

    Raises:
        StrawberryError: there is no run, it has no tokenizer, or its model is not causal.
    """

    def __init__(
        self,
        run: str | Path | LoadedRun,
        *,
        steps: int | None = None,
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        add_bos_token: bool = False,
        device: str = "auto",
        average: str | None = None,
        best: bool = False,
        seed: int = 0,
    ) -> None:
        loaded = run
        if not isinstance(loaded, LoadedRun):
            loaded = load_run(loaded, device=device, average=average, best=best)
        refuse_noncausal(loaded)
        if steps is not None:
            loaded.model.set_steps(steps)
        tokenizer = loaded.tokenizer()
        if loaded.recipe.train.document_mask:
            loaded.model.separator = tokenizer.eot
        self._setup(loaded.model, tokenizer, max_length or loaded.model.block_size)
        if batch_size != "auto":
            self.batch_size = int(batch_size)
        self.add_bos_token = add_bos_token
        self.seed = seed

    @classmethod
    def of_model(
        cls,
        model: nn.Module,
        tokenizer: Tokenizer,
        max_length: int,
        *,
        logits: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 16,
    ) -> StrawberryLM:
        """The same for a model at hand, in evaluation; `logits` says how it is computed."""
        self = cls.__new__(cls)
        self._setup(model, tokenizer, max_length, logits)
        self.batch_size = batch_size
        return self

    def _setup(
        self,
        model: Any,
        tokenizer: Tokenizer,
        max_length: int,
        logits: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.text = tokenizer
        limit = model.limit()
        self.max_length = max_length if limit is None else min(max_length, limit)
        self.batch_size, self.add_bos_token, self.seed = 16, False, 0
        self._logits: Callable[[Tensor], Tensor] = model if logits is None else logits
        self._device = next(model.parameters()).device
        model.drawable, model.gaps = tokenizer.vocab_size, tokenizer.gaps
        self._together = all(each.batch_independent for each in components(model))

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document and begins the next."""
        return self.text.eot

    @property
    def max_gen_toks(self) -> int:
        """New tokens of a task that doesn't say how many."""
        return 256

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's fingerprint."""
        return self.text.fingerprint

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids of a text, after the end-of-text token if `add_bos_token`."""
        ids = list(self.text.encode(string, special=True))
        wanted = self.add_bos_token if add_special_tokens is None else add_special_tokens
        return [self.eot_token_id, *ids] if wanted and ids[:1] != [self.eot_token_id] else ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context and its continuation, as the harness divides them.

        If the tokenizer merges the continuation into the context's last token, the two are encoded
        by themselves.
        """
        before, after = super()._encode_pair(context, continuation)
        if after and before:
            return before, after
        return before or [self.prefix_token_id], self.tok_encode(
            continuation, add_special_tokens=False
        )

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:
        """Log probability of each continuation after its context."""
        pairs: list[Pair] = []
        for context, continuation in (request.args for request in requests):
            if context:
                ids = self._encode_pair(context, continuation)
            else:
                ids = self._alone(self.tok_encode(continuation, add_special_tokens=False))
            pairs.append(((context, continuation), *ids))
        return self._loglikelihood_tokens(pairs)

    def _alone(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """Context and continuation of a text alone: the prefix token, which it may begin with."""
        if ids[:1] == [self.prefix_token_id]:
            return ids[:1], ids[1:]
        return [self.prefix_token_id], ids

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log probability of each whole text, in windows that score each token once."""
        texts = [request.args[0] for request in requests]
        pairs: list[Pair] = [
            (None, [self.prefix_token_id], self.tok_encode(text, add_special_tokens=False))
            for text in texts
        ]
        sums = [answer[0] for answer in self._loglikelihood_tokens(pairs)]
        for text, total in zip(texts, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return sums

    def _loglikelihood_tokens(self, requests: list[Pair], **kwargs: Any) -> list[Answer]:
        """Log probability of each continuation; equal windows are computed once."""
        cut = [list(windows(before, after, self.max_length)) for _, before, after in requests]
        scored = self._score({window for parts in cut for window in parts})
        answers = []
        for (texts, _, _), parts in zip(requests, cut, strict=True):
            each = [scored[window] for window in parts]
            answer = math.fsum(nats for nats, _ in each), all(greedy for _, greedy in each)
            answers.append(answer)
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    @torch.no_grad()
    def _score(self, wanted: set[Window]) -> dict[Window, Answer]:
        """The answer of each window; those that differ in the last token alone share a pass."""
        by_inputs: dict[tuple[int, ...], list[Window]] = {}
        for window in sorted(wanted):
            by_inputs.setdefault(window.ids[:-1], []).append(window)
        answers: dict[Window, Answer] = {}
        for batch in self._batches(list(by_inputs)):
            logits = self._logits(self._padded(batch))
            for row, inputs in zip(logits, batch, strict=True):
                of_row = by_inputs[inputs]
                most = max(window.scored for window in of_row)
                logs = row[len(inputs) - most : len(inputs)].float().log_softmax(-1)
                for window in of_row:
                    answers[window] = _answer(logs[most - window.scored :], window)
        return answers

    def _batches(self, inputs: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Inputs in batches, the longest first, as they may be padded at their end."""
        inputs = sorted(inputs, key=lambda ids: (-len(ids), ids))
        size = self.batch_size if self._together else 1
        for first in range(0, len(inputs), size):
            yield inputs[first : first + size]

    def _padded(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """(B, T): of a causal model, no output before the padding depends on it."""
        longest = max(map(len, batch))
        rows = [[*ids, *[self.eot_token_id] * (longest - len(ids))] for ids in batch]
        return torch.tensor(rows, device=self._device)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context until one of its stop texts, or the end of text."""
        texts = [""] * len(requests)
        by_settings: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            by_settings.setdefault(repr(request.args[1]), []).append(place)
        for places in by_settings.values():
            size = self.batch_size if self._together else 1
            order = sorted(places, key=lambda place: len(requests[place].args[0]))
            for first in range(0, len(order), size):
                self._continue(requests, order[first : first + size], texts)
        return texts

    def _continue(
        self, requests: Sequence[Instance], chosen: Sequence[int], texts: list[str]
    ) -> None:
        """Generate the texts of some requests that have the same settings."""
        from lm_eval.models.utils import normalize_gen_kwargs

        settings = dict(normalize_gen_kwargs(requests[chosen[0]].args[1], self.max_gen_toks))
        count = int(settings["max_gen_toks"])
        # Half a window is kept for the context: a longer text slides through the window.
        room = max(self.max_length - count, self.max_length // 2)
        prompts = []
        for place in chosen:
            ids = self.tok_encode(requests[place].args[0]) or [self.prefix_token_id]
            prompts.append(ids[-room:])
        new: list[list[int]] = [[] for _ in chosen]
        done = [False] * len(chosen)
        generators = [
            torch.Generator(device=self._device).manual_seed(self.seed + place) for place in chosen
        ]
        for step in sample_batch(self.model, prompts, count, _sampling(settings), generators):
            for row, token in step:
                done[row] = done[row] or token == self.eot_token_id
                if not done[row]:
                    new[row].append(token)
                    done[row] = _stopped(self.text.decode(new[row]), settings["until"])
            if all(done):
                break
        for place, ids in zip(chosen, new, strict=True):
            texts[place] = _cut(self.text.decode(ids), settings["until"])
            self.cache_hook.add_partial("generate_until", requests[place].args, texts[place])


def _answer(logs: Tensor, window: Window) -> Answer:
    """The answer of a window, from the log probabilities (scored, V) of its scored ids."""
    ids = torch.tensor(window.ids[len(window.ids) - window.scored :], device=logs.device)
    nats = logs.gather(-1, ids[:, None]).double().sum()
    return float(nats), bool((logs.argmax(-1) == ids).all())


def _sampling(settings: dict[str, Any]) -> Sampling:
    """The sampling that a task asks for; raises StrawberryError for a value that is invalid."""
    known = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
    if unknown := sorted(settings.keys() - known):
        raise StrawberryError(
            f"generation_kwargs: {', '.join(unknown)}: not supported; only "
            f"{', '.join(sorted(known))}"
        )
    if not settings.get("do_sample"):
        return Sampling(temperature=0)
    top_k, top_p = settings.get("top_k"), settings.get("top_p")
    sampling = Sampling(float(settings["temperature"]), top_k or None, top_p)
    sampling.check()
    return sampling


def _stopped(text: str, until: Sequence[str]) -> bool:
    return any(stop in text for stop in until if stop)


def _cut(text: str, until: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    ends = [text.index(stop) for stop in until if stop and stop in text]
    return text[: min(ends, default=len(text))]
