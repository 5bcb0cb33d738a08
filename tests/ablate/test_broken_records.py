"""Records of trials that are not whole."""

import json
from pathlib import Path

import pytest

from strawberry.cli.app import run


@pytest.mark.parametrize("record", [[], {}, {"name": "x", "recipe": {}}])
def test_a_record_that_lacks_something_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: object
) -> None:
    """What is missing is named, without a traceback."""
    (tmp_path / "trial.json").write_text(json.dumps(record))
    (tmp_path / "result.json").write_text(json.dumps({"status": "finished", "metrics": {}}))
    assert run(["ablate", str(tmp_path), "--reproduce"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "trial.json: incomplete record; missing:" in line
    assert "plugin_files" in line
