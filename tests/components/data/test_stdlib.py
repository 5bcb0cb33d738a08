"""The standard library as a corpus: real, the same every time, without its tests."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from strawberry.components.data import stdlib
from strawberry.components.data.stdlib import Stdlib, library_files
from strawberry.contracts.data import DataSite
from strawberry.data.bpe import byte_tokenizer
from strawberry.errors import FieldError, StrawberryError

ROOT = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture
def site(tmp_path: Path) -> DataSite:
    """A place for bytes as tokens."""
    return DataSite(257, 64, 0, tmp_path, (tmp_path,), lambda _: byte_tokenizer(["<|eot|>"]))


def test_the_library_is_there_without_its_noise() -> None:
    """Megabytes of sources, sorted, none of them a test, installed, or a generated table."""
    files = library_files(ROOT, 10**9)
    names = [file.relative_to(ROOT).as_posix() for file in files]
    assert names == sorted(names)
    assert {"ast.py", "json/decoder.py", "asyncio/tasks.py"} <= set(names)
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"test", "tests", "site-packages", "encodings", "idlelib", "__pycache__"}
    assert 4e6 < sum(file.stat().st_size for file in files) < 16e6


def test_a_small_share_is_spread_over_the_names() -> None:
    """The cap is kept to the byte, and what it leaves is not the alphabet's beginning."""
    few = library_files(ROOT, 500_000)
    assert 400_000 < sum(file.stat().st_size for file in few) <= 500_000
    assert set(few) <= set(library_files(ROOT, 10**9))
    names = [file.relative_to(ROOT).as_posix() for file in few]
    assert min(names)[0] < "c"
    assert max(names)[0] > "s"


def test_it_opens_the_same_every_time(site: DataSite, tmp_path: Path) -> None:
    """Another cache and another order of the disk give the same tokens; another cap does not."""
    first = Stdlib(site, max_bytes=200_000).open()
    assert first.n_tokens("train") > first.n_tokens("val") > 15_000  # type: ignore[operator]
    other = DataSite(257, 64, 0, tmp_path / "other", site.folders, site.tokenizer)
    assert Stdlib(other, max_bytes=200_000).open().fingerprint == first.fingerprint
    assert Stdlib(site, max_bytes=100_000).open().fingerprint != first.fingerprint
    x, _ = first.rows("train", 0, 4, block_size=64, seed=0)
    assert first.tokenizer is not None
    assert " " in first.tokenizer.decode(x[0].tolist())


def test_declared_encodings_are_read(tmp_path: Path) -> None:
    """A file that says latin-1 is read as that; one that says nonsense is named."""
    path = tmp_path / "a.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\ns = 'caf\xe9'\n")
    assert next(stdlib._read(path)).endswith("s = 'caf\u00e9'\n")
    path.write_bytes(b"# coding: nonsense\n")
    with pytest.raises(StrawberryError, match=r"a\.py: unknown encoding"):
        list(stdlib._read(path))


def test_a_python_without_sources_is_told_so(
    site: DataSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no text, the way out is another source, or a larger cap."""
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "none")})
    with pytest.raises(StrawberryError, match=r"no library sources in .*none.*use: text"):
        Stdlib(site).open()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "empty.py").touch()
    with pytest.raises(FieldError, match="contains no text"):
        Stdlib(site).open()
