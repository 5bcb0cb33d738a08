"""Sampling text from a trained model, a token at a time, with a cache."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.errors import StrawberryError
from strawberry.model.risks import declares, is_causal, noncausal
from strawberry.train.load import LoadedRun, load_run

if TYPE_CHECKING:
    from strawberry.data import Tokenizer
    from strawberry.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: only the k most likely; None for all.
        top_p: only the most likely whose probabilities sum to p; None for all.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None

    def check(self) -> None:
        """Raises StrawberryError if a value makes no sense."""
        if self.temperature < 0:
            raise StrawberryError(f"temperature {self.temperature:g} is below 0")
        if self.top_k is not None and self.top_k < 1:
            raise StrawberryError(f"top-k {self.top_k} is below 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise StrawberryError(f"top-p {self.top_p:g} is not above 0 and at most 1")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, V) -> probabilities (B, V); ties at the edge of top-k all stay."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        logits = logits / self.temperature
        if self.top_k is not None:
            edge = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < edge, float("-inf"))
        if self.top_p is not None:
            ordered, order = logits.softmax(-1).sort(dim=-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p  # the first one always stays
            logits = logits.masked_fill(
                torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf")
            )
        return logits.softmax(-1)


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
    """New ids (B,), one step at a time, after `prompt` (B, T).

    Where the model can place only so many tokens, the oldest are let go: the cache is then made
    anew from the last half. A model that isn't causal never has a cache: each new token changes
    what comes before it, so the whole sequence is computed anew.
    """
    use_cache = use_cache and declares(model, "cacheable") and is_causal(model)
    limit = model.limit()
    length = prompt.shape[1] + max_new_tokens
    room = length if limit is None else min(length, limit)
    ids = prompt[:, -room:]
    cache = model.new_cache(ids.shape[0], room) if use_cache else None
    fresh = ids
    for _ in range(max_new_tokens):
        if ids.shape[1] > room or (cache is not None and cache.offset + fresh.shape[1] > room):
            ids = ids[:, -max(1, room // 2) :]
            fresh = ids
            cache = model.new_cache(ids.shape[0], room) if use_cache else None
        logits = model(ids if cache is None else fresh, cache=cache)[:, -1]
        chances = sampling.probabilities(logits)
        chosen = torch.multinomial(chances, 1, generator=generator)
        ids, fresh = torch.cat([ids, chosen], dim=1), chosen
        yield chosen[:, 0]


def generate(
    run: str | Path | LoadedRun,
    prompt: str = "",
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    use_cache: bool = True,
    allow_noncausal: Collection[str] = (),
    steps: int | None = None,
    stream: Callable[[str], None] | None = None,
) -> str:
    """Continue a prompt with a trained model, until its end-of-text token or the limit.

    Args:
        run: a run folder, or one that is loaded.
        prompt: text to continue; empty begins a document.
        max_new_tokens: how many tokens at most.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: only the k most likely tokens.
        top_p: only the most likely tokens whose probabilities sum to p.
        seed: of the sampling.
        use_cache: False computes the whole sequence for each token; so it is in any case where
            the model isn't causal.
        allow_noncausal: components, as the recipe names them, that may be in the model though
            their outputs depend on later tokens, such as `moe` with `routing: expert`.
        steps: recursion steps, where not those of training.
        stream: called with each piece of text as soon as it is whole.

    Returns:
        The new text, without the prompt. Raises StrawberryError as `load_run` does, and where
        the model isn't causal without being allowed to.
    """
    if max_new_tokens < 0:
        raise StrawberryError(f"{max_new_tokens} new tokens are less than none")
    sampling = Sampling(temperature, top_k, top_p)
    sampling.check()
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    refuse_noncausal(loaded, allow_noncausal)
    if steps is not None:
        loaded.model.set_steps(steps)
    tokenizer = loaded.tokenizer()
    start = [tokenizer.eot, *tokenizer.encode(prompt, special=True)]
    if loaded.recipe.train.document_mask:  # only the last document is in sight
        start = start[len(start) - 1 - start[::-1].index(tokenizer.eot) :]
    device = loaded.model.device
    ids = torch.tensor([start], device=device)
    generator = torch.Generator(device=device).manual_seed(seed)
    pieces: list[str] = []
    chosen = sample_ids(loaded.model, ids, max_new_tokens, sampling, generator, use_cache=use_cache)
    for piece in decoded((int(token) for token in chosen), tokenizer):
        pieces.append(piece)
        if stream is not None:
            stream(piece)
    return "".join(pieces)


def refuse_noncausal(loaded: LoadedRun, allowed: Collection[str] = ()) -> None:
    """Raises StrawberryError if a component that isn't causal is not among those allowed."""
    short = {name.rsplit("/", 1)[-1] for name in allowed}
    names = [name for name in noncausal(loaded.recipe, loaded.model) if name not in short]
    if names:
        options = " ".join(f"--allow-noncausal {name}" for name in names)
        raise StrawberryError(
            f"{loaded.folder}: {', '.join(names)}: not causal: each token was trained with later "
            f"ones in sight, which are not there yet; to generate all the same, say {options}"
        )


def decoded(ids: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Text as it becomes whole: a character that spans ids waits for its last byte."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in ids:
        if token == tokenizer.eot:
            break
        # The model's vocabulary may be larger than the tokenizer's.
        raw = tokenizer.decode_bytes([token]) if token < tokenizer.vocab_size else b""
        if text := decoder.decode(raw):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest
