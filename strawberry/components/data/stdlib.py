"""The source text of the running Python's standard library: real text on every machine."""

from __future__ import annotations

import os
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import Field

from strawberry.contracts.data import Dataset, DataSite, DataSource
from strawberry.data.corpus import FileCorpus
from strawberry.data.division import Division, HeldBack, check_division, divided_text
from strawberry.data.texts import text_dataset
from strawberry.errors import StrawberryError
from strawberry.files.storage import FileFingerprints, about

# Tests and demonstrations, what is installed beside it, tables (`encodings`), bundled documents,
# and packages that come and go with Python's version or with how it was packed.
_SKIPPED = frozenset({
    "test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages",
    "dist-packages", "encodings", "pydoc_data", "distutils", "lib-dynload", "__pycache__",
})  # fmt: skip
_LONE = ("_sysconfigdata", "_sysconfig_vars")


class Stdlib(DataSource):
    """The `.py` files of the running Python's standard library, one document each, without tests.

    About 8 MB of code and English. Another version of Python has another text; the data set's
    fingerprint distinguishes them.

    Args:
        max_bytes: total size of the files, which are chosen by a digest of their names.
        data_division: fraction of the text for training; the rest is for validation.
        test_division: fraction of the text that moves from training to the locked test split.
    """

    prompt = (
        'class Reader:\n    """Read the lines of a file."""\n\n    def __init__(self, file):\n'
        "        self.file = file\n        self.line = None\n\n    def "
    )
    temperature = 0.9
    top_p = 0.8
    no_repeat = 5

    def __init__(
        self,
        site: DataSite,
        *,
        max_bytes: Annotated[int, Field(ge=1)] = 16_000_000,
        data_division: Division = 0.9,
        test_division: HeldBack = 0.0,
    ) -> None:
        super().__init__(site)
        self.max_bytes = max_bytes
        check_division(data_division, test_division)
        self.data_division = data_division
        self.test_division = test_division

    def open(self) -> Dataset:
        """Open the data set; raises StrawberryError if this Python has no library sources."""
        root = Path(sysconfig.get_paths()["stdlib"])
        files = library_files(root, self.max_bytes)
        if not files:
            version = ".".join(map(str, sys.version_info[:3]))
            raise StrawberryError(
                f"Python {version} has no library sources in {root}, or none within max_bytes; "
                "use data {use: text, path: ...}"
            )
        with about("max_bytes"):
            corpus = FileCorpus(
                files,
                _read,
                reader="python source 1",
                data_division=self.data_division,
                test_division=self.test_division,
                identities=FileFingerprints(self.site.cache),
                progress=self.site.progress,
            )
        return text_dataset(corpus, self.site)

    def known_ids(self, of_recipe: int | None) -> int | None:
        """The vocabulary size of the recipe's tokenizer."""
        return of_recipe

    def divided(self) -> str:
        """The division by fractions of the text."""
        return divided_text(self.data_division, self.test_division)


def library_files(root: Path, max_bytes: int) -> list[Path]:
    """The library's files under `root`, sorted by name, within `max_bytes`."""
    sizes: dict[str, int] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED and "config-" not in name]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and not name.startswith(_LONE) and path.is_file():
                sizes[path.relative_to(root).as_posix()] = path.stat().st_size
    chosen: list[str] = []
    room = max_bytes
    # In the order of a digest, so that a small share is not the alphabet's beginning.
    for name in sorted(sizes, key=lambda name: sha256(name.encode()).digest()):
        if sizes[name] <= room:
            room -= sizes[name]
            chosen.append(name)
    return [root / name for name in sorted(chosen)]


def _read(path: Path) -> Iterator[str]:
    """The text of a Python file, in its declared encoding."""
    try:
        with path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
        text = path.read_bytes().decode(encoding, errors="replace")
    except (OSError, SyntaxError, LookupError) as error:
        raise StrawberryError(f"{path}: {error}") from error
    if text:
        yield text
