"""Tables of runs: what is read, what follows from it, and where mistakes are."""

from pathlib import Path

import numpy as np
import pytest

from strawberry.errors import RecipeError, StrawberryError
from strawberry.ladder.table import read_runs


def write(folder: Path, text: str) -> Path:
    """A table."""
    path = folder / "runs.csv"
    path.write_text(text)
    return path


def test_reads_runs(tmp_path: Path) -> None:
    """Tokens follow from FLOPs and parameters; other columns and blank lines are left alone."""
    head = "name,parameters,training_flops,loss,architecture"
    text = f'{head}\n"a, b",100,6000,3.5,x\n\nc,2e2,12e3,3,y\n'
    runs = read_runs(write(tmp_path, text))
    assert runs.names == ("x", "y")
    assert runs.lines == (2, 4)
    np.testing.assert_allclose(runs.columns["tokens"], [10, 10])
    np.testing.assert_allclose(runs.loss, [3.5, 3])


def test_flops_follow_from_parameters_and_tokens(tmp_path: Path) -> None:
    """They are 6 N D."""
    runs = read_runs(write(tmp_path, "parameters,tokens,loss\n10,20,3\n"))
    np.testing.assert_allclose(runs.flops, [1200])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parameters,tokens,loss\n10,x,3\n", ["2:4: tokens: expected a number above 0, got x"]),
        ('parameters,tokens,loss\n"10",-1,\n', ["2:6: tokens: ", "2:9: loss: "]),
        ("parameters,tokens,loss\n1,2,nan\n1,inf,2\n", ["2:5: loss: ", "3:3: tokens: "]),
        ("parameters,tokens,loss\n1,2\n", ["2:3: expected 3 cells, as line 1 has, got 2"]),
        (
            "parameters,tokens,losses\n1,2,3\n",
            ["1:1: the column 'loss' is missing; is it 'losses'"],
        ),
        ("parameters,loss\n1,2\n", ["1:1: the column 'tokens' or 'training_flops' is missing"]),
        ("parameters,tokens,loss,loss\n1,2,3,4\n", ["1:24: the column 'loss' stands here again"]),
        ("parameters,tokens,loss,seed\n1,2,3,a\n", ["2:7: seed: expected a whole number, got a"]),
        ("parameters,tokens,loss,once\n1,2,3,1\n", ["'recurred' is missing", "'steps' is missing"]),
        ("parameters,tokens,loss\n", ["1:1: there is no run"]),
        ("", ["1:1: expected a line that names the columns"]),
    ],
)
def test_mistakes_are_located(tmp_path: Path, text: str, expected: list[str]) -> None:
    """All of them are told at once, each by line and column."""
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_runs(path)
    said = str(caught.value).splitlines()
    assert len(said) == len(expected)
    for line, part in zip(said, expected, strict=True):
        assert line.startswith(f"{path}:")
        assert part in line


def test_a_table_that_is_asked_for_needs_no_loss(tmp_path: Path) -> None:
    """A loss in it, or none, is no mistake; its sizes must be there."""
    assert len(read_runs(write(tmp_path, "training_flops,loss\n10,\n"), asked=True)) == 1
    with pytest.raises(StrawberryError, match="can't read"):
        read_runs(tmp_path / "none.csv")
