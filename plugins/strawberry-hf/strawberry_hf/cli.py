"""`strawberry hf`: checkpoints from and to transformers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from strawberry_hf.exporting import Form

command = typer.Typer(help="Exchange checkpoints with transformers.", add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@command.callback()
def _hf() -> None:
    """Exchange checkpoints with transformers."""


@command.command("export")
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    form: Annotated[
        str,
        typer.Option(
            help="native: an architecture of transformers, or an error; strawberry: the recipe "
            "inside, for any recipe; auto: the first where it can be."
        ),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Write a run as a folder that transformers loads, with a model card."""
    from strawberry.commands import plugins, print_json
    from strawberry.errors import StrawberryError
    from strawberry_hf.exporting import export_run
    from strawberry_hf.own import MODEL_TYPE

    if form not in ("auto", "native", "strawberry"):
        raise StrawberryError(f"--form: expected auto, native or strawberry, got {form!r}")
    exported = export_run(run, out, form=cast("Form", form), plugins=plugins())
    if as_json:
        print_json(
            {
                "path": str(exported.folder),
                "model_type": exported.model_type,
                "step": exported.step,
                "parameters": exported.parameters,
                "tokenizer": exported.tokenizer,
            }
        )
        return
    words = "" if exported.tokenizer else ", without a tokenizer: the run has none"
    typer.echo(
        f"{exported.folder}: {exported.model_type}, {exported.parameters:,} parameters, "
        f"of step {exported.step}{words}"
    )
    if exported.model_type == MODEL_TYPE:
        typer.echo("  `import strawberry_hf` lets AutoModelForCausalLM load it")


@command.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A checkpoint of transformers.")],
    run: Annotated[Path, typer.Argument(help="The run folder to make.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="Gives data, optimizer and training; the model is the checkpoint's."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="Override, such as train.max_iters=100."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run of a checkpoint: llama, mistral, qwen2, qwen3 or gpt2."""
    from strawberry.commands import plugins, print_json, progress
    from strawberry_hf.importing import import_checkpoint

    with progress() as shown:
        imported = import_checkpoint(
            folder,
            run,
            recipe=recipe,
            overrides=overrides or (),
            plugins=plugins(),
            progress=shown,
        )
    if as_json:
        print_json(
            {
                "run": str(imported.run),
                "model_type": imported.model_type,
                "parameters": imported.parameters,
            }
        )
        return
    typer.echo(
        f"{imported.run}: {imported.model_type}, {imported.parameters:,} parameters, at step 0"
    )
    where = shlex.quote(str(imported.run))
    typer.echo(f"  strawberry generate {where} 'Once upon a time'")
    typer.echo(f"  strawberry train {where} --run-dir {where} --resume")
