"""Files are whole or not there, and notes are trusted only of files that have not changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from strawberry.errors import StrawberryError
from strawberry.files import storage
from strawberry.files.atomic import new_folder, remove_orphans, write_atomic
from strawberry.files.lock import entry_lock
from strawberry.files.storage import FileFingerprints, cache_folder


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`STRAWBERRY_CACHE` wins; without it, the platform's own place is taken."""
    monkeypatch.setenv("STRAWBERRY_CACHE", "/somewhere/else")
    assert cache_folder() == Path("/somewhere/else")
    monkeypatch.delenv("STRAWBERRY_CACHE")
    monkeypatch.setattr(storage.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/strawberry")
    monkeypatch.setattr(storage.sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "strawberry"


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fails, the old content stays, nothing is left beside it, and that is said."""
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StrawberryError, match=f"{path}: can't write: No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """A folder appears when its block ends well; an error inside leaves nothing."""
    target = tmp_path / "made"

    def fail() -> None:
        with new_folder(target) as part:
            (part / "a").write_text("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())
    target.mkdir()  # an empty folder may be in its place
    with new_folder(target) as part:
        (part / "a").write_text("a")
        assert not list(target.iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert (target / "a").read_text() == "a"


def test_orphans_of_killed_writers_are_removed(tmp_path: Path) -> None:
    """What a killed writer of one entry left is removed; other entries are not touched."""
    for name in (".made.part-x", ".other.part-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "big").write_text("x")
    (tmp_path / ".made.part-file").write_text("x")
    remove_orphans(tmp_path / "made")
    assert [p.name for p in tmp_path.iterdir()] == [".other.part-x"]


def test_a_note_holds_until_the_file_changes(tmp_path: Path) -> None:
    """A note is recalled of the same file, and of no other state of it, not even same-sized."""
    path = tmp_path / "file"
    path.write_text("one")
    os.utime(path, ns=(0, 0))
    notes = FileFingerprints(tmp_path / "cache")
    notes.note([path], "length", 3)
    assert notes.recall([path], "length") is None  # too fresh: the clock could not tell a change
    settle(notes, path, "length")
    assert notes.recall([path], "length") == 3
    assert notes.recall([path], "depth") is None
    path.write_text("two")
    assert notes.recall([path], "length") is None


def settle(notes: FileFingerprints, path: Path, about: str) -> None:
    """Make a note look as if it had been taken a day after the file was last written."""
    note = notes._note([path], [path.stat()], about)
    late = path.stat().st_ctime_ns + 86_400_000_000_000
    os.utime(note, ns=(late, late))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error names the environment variable that helps; notes just do without."""
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(StrawberryError, match="STRAWBERRY_CACHE"):
        entry_lock(tmp_path / "cache", "key")
    path = tmp_path / "file"
    path.write_text("x")
    FileFingerprints(tmp_path / "cache").note([path], "about", 1)
    assert FileFingerprints(tmp_path / "cache").recall([path], "about") is None
