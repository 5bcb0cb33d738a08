"""Files of the original project, made into ours: checkpoints, encoders, data sets."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.errors import StrawberryError
from strawberry_original.checkpoint import import_checkpoint, is_archive
from strawberry_original.files import (
    TOKENS,
    encoder_of,
    is_dataset,
    is_encoder,
    load_encoder,
    write_dataset,
)
from strawberry_original.pickled import load_plain

if TYPE_CHECKING:
    from strawberry.plugin import Plugins


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """The kind of a file (`checkpoint`, `encoder`, `dataset`), the result, and how to use it."""

    kind: str
    path: Path
    size: int
    usage: str


def import_file(
    path: str | Path, out: str | Path, *, encoder: str | Path | None = None,
    plugins: Plugins | None = None,
) -> ImportedFile:  # fmt: skip
    """Make a file of the original project into one of ours; nothing in it is ever run.

    Args:
        path: a checkpoint (`.strawberry`), an encoder or a data set (`.bin`); its content decides.
        out: the run folder, the `tokenizer.json`, or the folder of tokens to make.
        encoder: the original's encoder that goes with a checkpoint or a data set.
        plugins: what recipes are resolved with; None loads those of this environment.

    Raises:
        StrawberryError: the file is none of these or does more than hold data, or `out` is in use.
    """
    path, out = Path(path), Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise StrawberryError(f"{out}: already exists; name another")
    tokenizer = None if encoder is None else load_encoder(Path(encoder))
    if is_archive(path):
        step = import_checkpoint(path, out, plugins, tokenizer)
        return ImportedFile(
            "checkpoint", out, step, shlex.join(["strawberry", "generate", str(out)])
        )
    value = load_plain(path)
    if is_encoder(value):
        imported = encoder_of(value, path)
        imported.save(out)
        return ImportedFile(
            "encoder", out, imported.vocab_size, f"tokenizer: {{use: bpe, path: {out}}}"
        )
    if is_dataset(value):
        count = write_dataset(value, path, out, tokenizer)
        usage = f"data: {{use: tokens, path: {out / TOKENS}}}"
        return ImportedFile("dataset", out, count, usage)
    raise StrawberryError(f"{path}: neither an encoder nor a data set of the original project")
