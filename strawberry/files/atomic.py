"""Replace a text file atomically."""

from __future__ import annotations

import os
from pathlib import Path

from strawberry.errors import StrawberryError
from strawberry.files.retry import retried


def write_atomic(path: Path, text: str) -> None:
    """Replace a file atomically; raises StrawberryError on a disk error."""
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
        raise StrawberryError(f"{path}: can't write: {error.strerror}") from error
