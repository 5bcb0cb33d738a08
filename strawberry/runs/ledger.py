"""The experiment ledger of a folder: what was asked of which data by all that lies in it.

It is `ledger.jsonl`, with a line for each entry; lines are only appended, under a lock. An
unreadable line counts as a question of every campaign. If the ledger was lost or the sweep was
moved here, the sweep's own record of its question counts. So damage gives no advantage.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import filelock

from strawberry.errors import StrawberryError

LEDGER: Final = "ledger.jsonl"
FINAL: Final = "final/final.json"
"""A sweep's record of its test split's openings."""
RECORD: Final = "ablation.json"
"""The record in a sweep's folder."""
SUITE: Final = "suite.json"
"""The names of its tables in a suite's folder."""
QUESTION, ANSWER, OPENING = "question", "answer", "opening"
_PATIENCE: Final = 60.0
"""Seconds to wait for another process that writes."""


class Ledger:
    """The ledger of a folder.

    Args:
        folder: the folder in which sweeps, or runs, lie side by side.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LEDGER

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it no other process writes; raises StrawberryError where that can't be had."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / f".{LEDGER}.lock", timeout=_PATIENCE):
                yield
        except filelock.Timeout as error:
            raise StrawberryError(f"{self.path}: another process has locked it for a minute") from (
                error
            )
        except OSError as error:
            raise StrawberryError(
                f"{self.path}: can't write: {error.strerror or error}; the experiment ledger "
                "records each question to the data"
            ) from error

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """All entries, oldest first, those of sweeps' own records after them; and damaged lines."""
        entries, damaged = [], 0
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise StrawberryError(f"{self.path}: {error.strerror or error}") from error
        for line in filter(None, lines):
            entry = _entry(line)
            if entry is None:
                damaged += 1
            else:
                entries.append(dict(entry))
        known = {_identity(entry) for entry in entries}
        for entry in self._recorded():
            if _identity(entry) not in known:
                known.add(_identity(entry))
                entries.append(entry)
        return entries, damaged

    def add(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Add an entry, whole or not at all; only while it is `held`."""
        entry = {
            "kind": kind,
            **fields,
            "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
        }
        line = json.dumps(entry, default=str).encode() + b"\n"
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # whoever wrote it was killed
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return entry

    def _recorded(self) -> Iterator[dict[str, Any]]:
        """The questions and openings that sweeps here, and suites' tables, note themselves."""
        for pattern in (f"*/{RECORD}", f"*/*/{RECORD}", f"*/{FINAL}", f"*/*/{FINAL}"):
            for path in sorted(self.folder.glob(pattern)):
                with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
                    content = json.loads(path.read_text())
                    for entry in [content.get("campaign"), *content.get("openings", ())]:
                        if isinstance(entry, Mapping) and entry.get("kind") in (QUESTION, OPENING):
                            yield dict(entry)


@functools.lru_cache(maxsize=4096)  # a ledger is read again for each question, and only grows
def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None if it is damaged."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("data"), str):
        return None
    kind = entry.get("kind")
    if kind == QUESTION and not all(isinstance(entry.get(k), int) for k in ("index", "number")):
        return None
    return entry if kind in (QUESTION, ANSWER, OPENING) else None


def _identity(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Keys that distinguish two entries."""
    names = ("kind", "campaign", "data", "question", "seeds", "folder", "opening")
    return tuple(
        str(entry.get(name)) for name in names if name != "folder" or entry["kind"] == OPENING
    )
