"""`strawberry data`: encode text into token files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge, Gt, Le, Lt

from strawberry.cli.options import Json, TextField, TextPaths

if TYPE_CHECKING:
    from strawberry.data import PreparedData

command = typer.Typer(help="Prepare token files.", add_completion=False)


@command.callback()
def _data() -> None:
    """Prepare token files."""


@command.command("prepare")
def prepare(
    paths: TextPaths,
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json; a BPE is trained if not given.")
    ] = None,
    vocab_size: Annotated[
        int,
        typer.Option(help="Vocabulary size of the trained BPE, special tokens included."),
        Ge(1),
        Le(1 << 30),
    ] = 8192,
    data_division: Annotated[
        float, typer.Option(help="Share of the text for training."), Gt(0), Lt(1)
    ] = 0.9,
    test_division: Annotated[
        float,
        typer.Option(help="Share of the text for a locked test split."),
        Ge(0),
        Lt(1),
    ] = 0.0,
    val: Annotated[
        str | None, typer.Option(help="Files that are the validation split; divided if not given.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Files that are the locked test split.")] = None,
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="Add a part to the folder. Several processes may do so at once; the first one's "
            "tokenizer is that of all.",
        ),
    ] = False,
    field: TextField = "text",
    special: Annotated[
        bool, typer.Option("--special", help="Encode the texts of special tokens as their ids.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Encode text into a folder that `data: {use: tokens, path: DIR}` reads."""
    from strawberry.cli.console import print_json
    from strawberry.cli.progress import shown
    from strawberry.cli.terminal import warn
    from strawberry.data import prepare as prepare_folder

    with shown() as progress:
        prepared = prepare_folder(
            paths,
            out,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            data_division=data_division,
            test_division=test_division,
            val=val,
            test=test,
            add=add,
            field=field,
            special=special,
            progress=progress,
        )
    result = _result(prepared)
    if as_json:
        print_json(result)
        return
    for line in prepared.notes:
        warn(line)
    if not prepared.written:
        warn(f"{prepared.folder} was there already: the same text")
    _show(result, out)


def _result(prepared: PreparedData) -> dict[str, Any]:
    meta = prepared.meta
    size, count = sum(meta.n_bytes.values()), sum(meta.n_tokens.values())
    return {
        "path": str(prepared.folder),
        "documents": meta.n_documents,
        "notes": prepared.notes,
        "bytes": meta.n_bytes,
        "tokens": meta.n_tokens,
        "vocab_size": meta.vocab_size,
        "bytes_per_token": size / count,
        "written": prepared.written,
        "tokens_per_second": count / prepared.encode_seconds if prepared.written else None,
        "tokenizer": meta.tokenizer,
        "seconds": {
            "corpus": prepared.corpus_seconds,
            "tokenizer": prepared.tokenizer_seconds,
            "encode": prepared.encode_seconds,
        },
    }


def _show(result: dict[str, Any], folder: Path) -> None:
    from strawberry.cli.console import show, table
    from strawberry.recipe.yaml import quoted

    rows = table("", "tokens", "MB of text")
    for split, count in result["tokens"].items():
        rows.add_row(split, f"{count:,}", f"{result['bytes'][split] / 1e6:.2f}")
    show(rows)
    text = (
        f"{result['documents']:,} documents, vocabulary {result['vocab_size']:,}, "
        f"{result['bytes_per_token']:.2f} bytes a token, "
        f"{sum(result['seconds'].values()):.1f} s{_speed(result)}\n"
        f"in a recipe: data: {{use: tokens, path: {quoted(str(folder))}}}"
    )
    typer.echo(text)


def _speed(result: dict[str, Any]) -> str:
    speed = result["tokens_per_second"]
    return "" if speed is None else f", encoded at {speed / 1e6:.2f}M tokens/s"
