"""Replacing a text file in one step."""

from __future__ import annotations

import os
from pathlib import Path

from strawberry.errors import StrawberryError
from strawberry.files.retry import retried


def write_atomic(path: Path, text: str) -> None:
    """Replace a file in one step; raises StrawberryError if the disk refuses."""
    temporary = path.with_name(f".{path.name}.writing")

    def write() -> None:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    try:
        retried(write)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StrawberryError(f"{path}: can't be written: {error.strerror}") from error
