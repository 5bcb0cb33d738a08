"""The experiment ledger of a folder: every question that its sweeps asked of their data.

Campaigns correct for the number of questions. The ledger is `ledger.jsonl`, with a line for each
entry; lines are only appended, under a lock. A damaged line counts as a question of every
campaign. If the ledger is lost, or a sweep was moved here, the sweep's own record counts. So
neither damage nor deletion makes a result look more significant.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import filelock

from strawberry.errors import StrawberryError

LEDGER: Final = "ledger.jsonl"
# The next three are files of strawberry.ablate, which this package may not import.
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
        """Hold the ledger's lock; raises StrawberryError if it can't be acquired in a minute."""
        lock = filelock.FileLock(self.folder / f".{LEDGER}.lock", timeout=_PATIENCE)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise StrawberryError(f"{self.path}: another process has locked it for a minute") from (
                error
            )
        except OSError as error:
            raise self._refused(error) from error
        try:
            yield
        finally:
            lock.release()

    def _refused(self, error: OSError) -> StrawberryError:
        return StrawberryError(
            f"{self.path}: can't write: {error.strerror or error}; the experiment ledger "
            "records each question to the data"
        )

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """Return the entries, oldest first, and the number of damaged lines.

        Entries that only a sweep's own record has come last.
        """
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
                entries.append(entry)
        known = {_identity(entry) for entry in entries}
        for entry in self._recorded():
            if _identity(entry) not in known:
                known.add(_identity(entry))
                entries.append(entry)
        return entries, damaged

    def add(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Add an entry, whole or not at all; only while the ledger is `held`.

        Raises StrawberryError if the disk refuses it.
        """
        entry = {
            "kind": kind,
            **fields,
            "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
        }
        try:
            self._append(json.dumps(entry, default=str).encode() + b"\n")
        except OSError as error:
            raise self._refused(error) from error
        return entry

    def _append(self, line: bytes) -> None:
        with self.path.open("ab+", buffering=0) as file:  # a buffer would be written at the close
            size = file.tell()
            if size:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the process that wrote it was killed
                    line = b"\n" + line
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)  # half a line would count as a question for ever
                raise

    def _recorded(self) -> Iterator[dict[str, Any]]:
        """The questions and openings that sweeps here, and suites' tables, note themselves."""
        for pattern in (f"*/{RECORD}", f"*/*/{RECORD}", f"*/{FINAL}", f"*/*/{FINAL}"):
            for path in sorted(self.folder.glob(pattern)):
                with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
                    content = json.loads(path.read_text())
                    for entry in [content.get("campaign"), *content.get("openings", ())]:
                        if isinstance(entry, Mapping) and entry.get("kind") in (QUESTION, OPENING):
                            yield dict(entry)


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
