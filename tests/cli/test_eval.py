import json
from pathlib import Path

import pytest

from strawberry.cli.app import run
from tests.cli.runs import *  # noqa: F403 (fixtures)


def test_prints_the_validation_loss(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON, with bits per byte, equal to what training logged last."""
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    capsys.readouterr()
    assert run(["eval", str(trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["val_loss"] == pytest.approx(rows[-1]["val_loss"], rel=1e-6)
    assert run(["eval", str(trained)]) == 0
    assert "bits per byte" in capsys.readouterr().out
