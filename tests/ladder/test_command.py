"""`strawberry ladder fit` from a table alone."""

import json
from pathlib import Path

import pytest

from strawberry.cli.app import run
from tests.ladder.test_fit import made


def table(path: Path, *, loss: bool = True) -> Path:
    """The runs of a known law as a file."""
    runs = made(noise=0.004)
    columns = runs.columns
    rows = zip(columns["parameters"], columns["training_flops"], columns["loss"], strict=True)
    lines = [",".join(f"{x:.8g}" for x in (row if loss else row[:2])) for row in rows]
    head = "parameters,training_flops" + (",loss" if loss else "")
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_predicts_a_row_for_each_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has the fit, and a loss with an interval for every asked size, in their order."""
    runs, asked = table(tmp_path / "runs.csv"), table(tmp_path / "asked.csv", loss=False)
    assert run(["ladder", "fit", str(runs), "--predict", str(asked), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    true = made().loss
    assert len(content["predictions"]) == len(true)
    for row, loss in zip(content["predictions"], true, strict=True):
        assert row["low"] < row["loss"] < row["high"]
        assert row["loss"] == pytest.approx(loss, rel=0.01)
    assert set(content["fit"]["parameters"]) == {"E", "A", "B", "a", "b"}


def test_says_it_to_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The law, its checks and what is ahead are printed."""
    assert run(["ladder", "fit", str(table(tmp_path / "runs.csv"))]) == 0
    said = capsys.readouterr().out
    assert "L = E + A / N^a + B / D^b" in said
    assert "within their 90 % interval" in said
    assert "1000x" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--law", "computed"], "--law: expected size_and_tokens, compute, recursion"),
        (["--law", "recursion"], "needs the column 'once'"),
        (["--delta", "0"], "expected above 0"),
    ],
)
def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    """They are told in a line, and the exit code is 2."""
    assert run(["ladder", "fit", str(table(tmp_path / "runs.csv")), *arguments]) == 2
    assert expected in capsys.readouterr().err
