"""`strawberry tokenizer`: train tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge, Le

from strawberry.cli.options import Json, TextField, TextPaths

command = typer.Typer(help="Train tokenizers.", add_completion=False)


@command.callback()
def _tokenizer() -> None:
    """Train tokenizers."""


@command.command("train")
def train(
    paths: TextPaths,
    out: Annotated[Path, typer.Option(help="The tokenizer.json to write.")],
    vocab_size: Annotated[
        int, typer.Option(help="Vocabulary size, special tokens included."), Ge(1), Le(1 << 30)
    ],
    special: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="A special token, in place of the default ones; may be repeated."
        ),
    ] = None,
    pattern: Annotated[
        str,
        typer.Option(help="Splitting of text: gpt2, gpt4, gpt4o, code, or a regular expression."),
    ] = "gpt4",
    field: TextField = "text",
    as_json: Json = False,
) -> None:
    """Train a byte-level BPE on text."""
    from strawberry.cli.console import print_json
    from strawberry.cli.progress import shown
    from strawberry.cli.terminal import warn
    from strawberry.data.texts import train_tokenizer

    with shown() as progress:
        trained = train_tokenizer(
            paths,
            out,
            vocab_size=vocab_size,
            special_tokens=special,
            pattern=pattern,
            field=field,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "path": str(out),
                "vocab_size": trained.tokenizer.vocab_size,
                "special_tokens": trained.tokenizer.special_tokens,
                "fingerprint": trained.tokenizer.fingerprint,
                "bytes": trained.n_bytes,
                "notes": trained.notes,
                "seconds": trained.seconds,
            }
        )
        return
    for line in trained.notes:
        warn(line)
    rate = trained.n_bytes / 1e6 / max(trained.seconds, 1e-9)
    typer.echo(
        f"{out}: vocabulary {trained.tokenizer.vocab_size:,}, trained on "
        f"{trained.n_bytes / 1e6:.2f} MB in {trained.seconds:.2f} s ({rate:.1f} MB/s)"
    )
