"""Generate text from a trained model, for one prompt or several at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from strawberry.contracts.tokenizer import checked_ids
from strawberry.data.streaming import TextStream
from strawberry.errors import StrawberryError
from strawberry.generation.decode import sample_batch
from strawberry.generation.heads import check_heads, speculate_by_heads
from strawberry.generation.load import LoadedRun, load_run
from strawberry.generation.sampling import Sampling, sampling_for
from strawberry.generation.speculative import check_draft, check_exit, speculate
from strawberry.model.risks import declares, noncausal
from strawberry.runs.memory import within_memory

if TYPE_CHECKING:
    from strawberry.data import Tokenizer

Step: TypeAlias = list[tuple[int, int]]
"""(row, id) pairs of the rows that got a new id."""


def generate(
    run: str | Path | LoadedRun,
    prompt: str = "",
    *,
    max_new_tokens: int = 256,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    no_repeat: int | None = None,
    seed: int = 0,
    use_cache: bool = True,
    allow_noncausal: Collection[str] = (),
    steps: int | None = None,
    stream: Callable[[str], None] | None = None,
) -> str:
    """Continue a prompt with a trained model, until its end-of-text token or the limit.

    Args:
        run: a run folder, or a loaded run, with weights in any format.
        prompt: text to continue; empty starts a document.
        max_new_tokens: maximum number of new tokens.
        temperature: divides the logits; 0 takes the most likely token, None what suits the run's
            data source.
        top_k: sample from the k most likely tokens.
        top_p: sample from the most likely tokens with total probability p; 1 takes all, None what
            suits the run's data source.
        no_repeat: never repeat a run of this many tokens; 0 allows it, None takes what suits the
            run's data source.
        seed: random seed of the sampling.
        use_cache: False computes the whole sequence for each token, as for every non-causal model.
        allow_noncausal: components, by their names in the recipe, that may depend on later tokens,
            such as `moe` with `routing: expert`.
        steps: recursion steps; None takes those of training.
        stream: receives each piece of text once it is complete.

    Returns:
        The new text, without the prompt. Raises StrawberryError as `load_run` does, and for a
        non-causal model without permission.
    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run, weights="float32")
    ((text,),) = generate_batch(
        loaded,
        [prompt],
        max_new_tokens=max_new_tokens,
        sampling=sampling_for(loaded.recipe, temperature, top_k, top_p, no_repeat),
        seed=seed,
        use_cache=use_cache,
        allow_noncausal=allow_noncausal,
        steps=steps,
        stream=None if stream is None else lambda _, piece: stream(piece),
    )
    return text


def generate_batch(
    run: str | Path | LoadedRun,
    prompts: Sequence[str],
    *,
    samples: int = 1,
    max_new_tokens: int = 256,
    sampling: Sampling | None = None,
    seed: int = 0,
    use_cache: bool = True,
    allow_noncausal: Collection[str] = (),
    steps: int | None = None,
    draft_steps: int | None = None,
    draft_heads: bool = False,
    stream: Callable[[int, str], None] | None = None,
) -> list[list[str]]:
    """Continue several prompts at once, each `samples` times; otherwise as `generate`.

    A prompt is read once for all of its samples. Sample n of every prompt has the seed `seed + n`,
    so a text does not depend on the others. If a component's outputs depend on other sequences of a
    batch, sequences are computed one by one.

    Args:
        run: a run folder, or a loaded run.
        prompts: texts to continue.
        samples: number of continuations of each prompt.
        max_new_tokens: maximum number of new tokens.
        sampling: sampling settings; None takes the defaults of `generate`.
        seed: seed of the first sample.
        use_cache: False computes whole sequences for each token.
        allow_noncausal: components that may see later tokens.
        steps: recursion steps; None takes those of training.
        draft_steps: draft with this many recursion steps and verify with all, row by row. Needs
            `temperature` 0, whose text it doesn't change.
        draft_heads: the same with the heads of the objective: those of `multi_token`, or an exit
            of `early_exit`.
        stream: receives a row's number (prompt * samples + sample) and a piece of its text.

    Returns:
        The new texts, by prompt and sample.
    """
    _check_least(max_new_tokens=(max_new_tokens, 0), samples=(samples, 1))
    if not prompts:
        return []
    loaded = run if isinstance(run, LoadedRun) else load_run(run, weights="float32")
    sampling = sampling or sampling_for(loaded.recipe)
    sampling.check()
    refuse_noncausal(loaded, allow_noncausal)
    if steps is not None:
        loaded.model.set_steps(steps)
    drafted = _drafts(loaded, sampling, draft_steps, heads=draft_heads)
    tokenizer = loaded.tokenizer()
    loaded.model.drawable, loaded.model.gaps = tokenizer.vocab_size, tokenizer.gaps
    starts = [_start(loaded, tokenizer, prompt) for prompt in prompts]
    seeds = [seed + sample for _ in prompts for sample in range(samples)]
    texts = [TextStream(tokenizer, starts[row // samples][1:]) for row in range(len(seeds))]
    ended = [False] * len(texts)

    def steps_of(prompts: Sequence[Sequence[int]], samples: int, first: int) -> Iterator[Step]:
        """New ids, step by step, of rows from `first` on."""
        if drafted:
            start = torch.tensor([list(prompts[0])], device=loaded.model.device)
            tokens = (
                speculate_by_heads(loaded.model, start, max_new_tokens)
                if draft_steps is None and loaded.model.objective.drafts
                else speculate(loaded.model, start, max_new_tokens, draft_steps)
            )
            yield from ([(0, token)] for token in tokens)
            return
        generators = [
            torch.Generator(device=loaded.model.device).manual_seed(each)
            for each in seeds[first : first + len(prompts) * samples]
        ]
        yield from sample_batch(
            loaded.model, prompts, max_new_tokens, sampling, generators,
            samples=samples, use_cache=use_cache,
        )  # fmt: skip

    def read(prompts: Sequence[Sequence[int]], samples: int, first: int) -> None:
        """Continue these prompts; their rows begin at `first`."""
        mine = slice(first, first + len(prompts) * samples)
        for new in steps_of(prompts, samples, first):
            for row, token in new:
                take(first + row, token)
            if all(ended[mine]):
                break

    def take(row: int, token: int) -> None:
        """Add an id to a row, unless its text has ended."""
        ended[row] = ended[row] or token == tokenizer.eot
        # The model's vocabulary may be larger than the tokenizer's.
        if ended[row] or token >= tokenizer.vocab_size:
            return
        if stream is None:
            texts[row].append(token)
        elif piece := texts[row].add(token):
            stream(row, piece)

    def advice() -> str:
        return f"lower max_new_tokens (now {max_new_tokens}) or samples (now {samples})"

    with within_memory(advice):
        if not drafted and declares(loaded.model, "batch_independent"):
            read(starts, samples, 0)
        else:
            for row in range(len(seeds)):
                read([starts[row // samples]], 1, row)
    for row, text in enumerate(texts):
        if stream is not None and (rest := text.end()):
            stream(row, rest)
    decoded = [text.text() for text in texts]
    return [decoded[i : i + samples] for i in range(0, len(decoded), samples)]


def _drafts(loaded: LoadedRun, sampling: Sampling, steps: int | None, *, heads: bool) -> bool:
    """Whether tokens are drafted; raises StrawberryError if they can't be."""
    if (heads or steps is not None) and sampling.temperature != 0:
        raise StrawberryError("drafts need temperature 0")
    if heads and steps is not None:
        raise StrawberryError("draft with heads or with fewer steps, not with both")
    if heads:
        (check_heads if loaded.model.objective.drafts else check_exit)(loaded.model)
    if steps is not None:
        check_draft(loaded.model, steps)
    return heads or steps is not None


def _check_least(**given: tuple[int, int]) -> None:
    """Raises StrawberryError if one of these numbers is too small."""
    for name, (value, least) in given.items():
        if value < least:
            raise StrawberryError(f"{name} must be at least {least}, got {value}")


def _start(loaded: LoadedRun, tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, after the end-of-text token that starts a document.

    A prompt that begins with that token has it once, as in training. If attention is restricted to
    documents, the last one counts.
    """
    ids: list[int] = checked_ids(tokenizer.encode(prompt, special=True), tokenizer).tolist()
    if ids[:1] != [tokenizer.eot]:
        ids = [tokenizer.eot, *ids]
    if loaded.recipe.train.document_mask:
        ids = ids[len(ids) - 1 - ids[::-1].index(tokenizer.eot) :]
    return ids


def refuse_noncausal(loaded: LoadedRun, allowed: Collection[str] = ()) -> None:
    """Raises StrawberryError if a non-causal component is not among those allowed."""
    if not loaded.model.objective.left_to_right:
        name = loaded.recipe.objective.entry.name
        raise StrawberryError(
            f"{loaded.folder}: its objective {name} doesn't predict the token that "
            "follows: text can't be generated token by token"
        )
    short = {name.rsplit("/", 1)[-1] for name in allowed}
    names = [name for name in noncausal(loaded.recipe, loaded.model) if name not in short]
    if names:
        options = " ".join(f"--allow-noncausal {name}" for name in names)
        raise StrawberryError(
            f"{loaded.folder}: {', '.join(names)}: not causal: it attends to later tokens, "
            f"which don't exist during generation; pass {options} to generate anyway"
        )
