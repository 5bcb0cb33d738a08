from pathlib import Path

import pytest

from strawberry.cli.app import run
from tests.cli.runs import *  # noqa: F403 (fixtures)


def test_prints_where_the_picture_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the run folder, or where --out says."""
    pytest.importorskip("matplotlib")
    capsys.readouterr()
    assert run(["plot", str(trained)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.parent == trained
    assert path.read_bytes().startswith(b"\x89PNG")
    assert run(["plot", str(trained), str(trained), "--out", "both.png"]) == 0
    assert Path("both.png").is_file()
