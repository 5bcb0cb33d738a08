"""`strawberry generate`: continue prompts with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from annotated_types import Ge, Gt, Le

from strawberry.cli.numbers import Counted, Depth
from strawberry.cli.options import Average, Best, Device, Json


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            help="Prompts to continue; without one, text starts from a new document.",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Continuations of each prompt."), Ge(1), Le(4096)
    ] = 1,
    max_new_tokens: Annotated[
        int, typer.Option(help="Maximum number of new tokens."), Ge(0), Counted
    ] = 256,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Divides the logits; 0 takes the most likely token. 0.75 if not given, or what "
            "suits the data source: 0.9 for stdlib."
        ),
        Ge(0),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Sample from the K most likely tokens."), Ge(1), Counted
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Sample from the most likely tokens with total probability P. 0.9 if not given, "
            "or what suits the data source: 0.8 for stdlib."
        ),
        Gt(0),
        Le(1),
    ] = None,
    no_repeat: Annotated[
        int | None,
        typer.Option(
            help="Never repeat a run of N tokens; 0 allows it. 8 if not given, or what suits the "
            "data source: 5 for stdlib."
        ),
        Ge(0),
        Counted,
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed of the sampling."), Ge(0), Le(2**63 - 1)
    ] = 0,
    cache: Annotated[
        bool, typer.Option(help="Use a decoding cache; generation is slow without it.")
    ] = True,
    allow_noncausal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Generate although component NAME sees later tokens; may be repeated. The "
            "whole sequence is computed again for each token.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Recursion steps; those of training if not given."),
        Ge(1),
        Depth,
    ] = None,
    draft_steps: Annotated[
        int | None,
        typer.Option(help="Draft with K recursion steps, verify with all (temperature 0 only)."),
        Ge(1),
        Depth,
    ] = None,
    draft_heads: Annotated[
        bool,
        typer.Option(
            "--draft-heads",
            help="Draft with the heads of the objective, verify with the model (temperature 0 "
            "only).",
        ),
    ] = False,
    weights: Annotated[
        Literal["float32", "bfloat16", "int8"],
        typer.Option(help="Round matrices to fewer bits: less memory traffic for each token."),
    ] = "float32",
    device: Device = "auto",
    average: Average = None,
    best: Best = False,
    as_json: Json = False,
) -> None:
    """Continue prompts with a trained model."""
    import time

    from strawberry.cli import context
    from strawberry.cli.console import print_json, say
    from strawberry.cli.terminal import warn
    from strawberry.generation import generate_batch, load_run
    from strawberry.generation.sampling import sampling_for
    from strawberry.generation.text import refuse_noncausal

    given = prompts or [""]
    alone = len(given) * samples == 1
    ahead = [given[0]] if alone and not as_json else []  # printed once there is no error left

    def write(piece: str) -> None:
        say("".join([*ahead, piece]))
        ahead.clear()

    loaded = load_run(
        run, device=device, plugins=context.plugins(), best=best, weights=weights, average=average
    )
    for line in loaded.warnings:
        warn(line)
    refuse_noncausal(loaded, allow_noncausal or ())
    began = time.perf_counter()
    generated = generate_batch(
        loaded,
        given,
        samples=samples,
        max_new_tokens=max_new_tokens,
        sampling=sampling_for(loaded.recipe, temperature, top_k, top_p, no_repeat),
        seed=seed,
        use_cache=cache,
        allow_noncausal=allow_noncausal or (),
        steps=steps,
        draft_steps=draft_steps,
        draft_heads=draft_heads,
        stream=(lambda _, piece: write(piece)) if alone and not as_json else None,
    )
    seconds = time.perf_counter() - began
    texts = [
        (prompt, text) for prompt, texts in zip(given, generated, strict=True) for text in texts
    ]
    if as_json:
        rest = {"step": loaded.step, "seconds": seconds}
        rows = [{"prompt": prompt, "text": text} for prompt, text in texts]
        print_json({**rows[0], **rest} if alone else {"continuations": rows, **rest})
    elif alone:
        write("\n")
    else:
        write("\n\n".join(prompt + text for prompt, text in texts) + "\n")
