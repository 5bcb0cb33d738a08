"""The experiment ledger on a disk that fills up."""

import os
from pathlib import Path

import pytest

from strawberry.errors import StrawberryError
from strawberry.runs.ledger import Ledger


def test_an_entry_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk refuses an entry, nothing of it stays to be counted as a question."""
    ledger = Ledger(tmp_path)
    with ledger.held():
        ledger.add("answer", data="a")
        before = ledger.path.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StrawberryError, match="No space left on device; the experiment ledger"):
            ledger.add("answer", data="b")
    assert ledger.path.read_bytes() == before
    assert len(ledger.read()[0]) == 1


def test_what_fails_while_it_is_held_is_not_its_fault(tmp_path: Path) -> None:
    """An error of the caller passes through, and the lock is free again."""
    ledger = Ledger(tmp_path)
    with pytest.raises(PermissionError, match="of the data"), ledger.held():
        raise PermissionError(13, "of the data")
    with ledger.held():
        assert ledger.read() == ([], 0)
