"""Options and arguments that several commands have, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RecipePath: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help="A recipe: a file, a run folder, or one of `strawberry recipes`, such as air."
    ),
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="K=V", help="Override a field, such as train.batch_size=16; repeatable."
    ),
]
TextPaths: TypeAlias = Annotated[
    list[str], typer.Argument(help="Text files, folders or patterns (.txt, .jsonl, .json).")
]
TextField: TypeAlias = Annotated[str, typer.Option(help="Name of the text field in JSON objects.")]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Average: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Use this average of the weights, which the run kept."),
]
Best: TypeAlias = Annotated[
    bool,
    typer.Option("--best", help="Load the checkpoint with the lowest val_loss, not the newest."),
]
Executor: TypeAlias = Annotated[
    str | None, typer.Option(help="What runs the trials, such as '{use: local, jobs: 4}'.")
]
TrialsFolder: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of the trials; derived from the plan if not given.")
]
