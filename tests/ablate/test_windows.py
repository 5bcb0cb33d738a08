"""The noise of windows: a ratio's standard error by document, from rows that runs keep."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strawberry.ablate.final import final
from strawberry.ablate.report import tabulate, write_report
from strawberry.ablate.report.text import noise
from strawberry.ablate.windows import clustered, windows_error
from strawberry.cli.app import run as command
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from strawberry.runs.ledger import OPENING, Ledger
from strawberry.training.items import RowLosses, last_rows, read_rows
from tests.ablate.conftest import PlanMaker
from tests.ablate.test_sweep import run


def literal(sums: list[float], counts: list[int], group: list[int]) -> float:
    """The same, group by group."""
    ratio = sum(sums) / sum(counts)
    residuals: dict[int, float] = {}
    for s, c, g in zip(sums, counts, group, strict=True):
        residuals[g] = residuals.get(g, 0.0) + s - ratio * c
    n = len(residuals)
    return math.sqrt(n / (n - 1) * sum(r * r for r in residuals.values())) / sum(counts)


def rows(nats: Any, targets: Any = None, group: Any = None) -> RowLosses:
    nats = np.asarray(nats, float)
    targets = np.full(len(nats), 8) if targets is None else np.asarray(targets)
    group = np.arange(len(nats)) if group is None else np.asarray(group)
    return RowLosses(nats, targets, group)


def test_it_is_the_ratio_s_error_by_document() -> None:
    """Against a literal loop; rows without targets don't count; few documents are no sample."""
    rng = np.random.default_rng(0)
    targets, group = rng.integers(0, 4, 60), np.repeat(np.arange(15), 4)
    base, cell = rng.normal(size=60) * (targets > 0), rng.normal(size=60) * (targets > 0)
    counted = targets > 0
    gaps, kept = (cell - base)[counted].tolist(), targets[counted].tolist()
    one = {1: rows(cell, targets, group)}, {1: rows(base, targets, group)}
    assert windows_error(*one) == pytest.approx(literal(gaps, kept, group[counted].tolist()))
    few = {1: rows(cell, targets, group // 5)}, {1: rows(base, targets, group // 5)}
    assert windows_error(*few) == pytest.approx(literal(gaps, kept, list(range(len(gaps)))))
    assert clustered(np.ones(3), np.ones(3, np.int64), np.zeros(3, np.int64)) is None


def test_it_covers_the_difference_of_other_documents() -> None:
    """Of many samples of documents, the ratio scatters as the error says; windows alone would not.

    A document moves all of its windows, so that without clusters the error is half of that.
    """
    rng = np.random.default_rng(1)
    ratios, errors, naive = [], [], []
    for _ in range(400):
        group, targets = np.repeat(np.arange(40), 6), rng.integers(1, 9, 240)
        gaps = (0.1 + rng.normal(size=40)[group] + rng.normal(size=240)) * targets
        ratios.append(gaps.sum() / targets.sum())
        errors.append(clustered(gaps, targets, group))
        naive.append(clustered(gaps, targets, np.arange(240)))
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.1)  # type: ignore[arg-type]
    assert np.mean(naive) < 0.7 * np.std(ratios)  # type: ignore[arg-type]


def test_rows_that_differ_are_not_paired() -> None:
    """Other numbers of targets are other rows; seeds without a partner are left out."""
    assert windows_error({1: rows([1, 2, 3])}, {1: rows([1, 2, 3], [8, 8, 7])}) is None
    assert windows_error({1: rows([1, 2])}, {2: rows([1, 2])}) is None


def test_a_sweep_keeps_rows_and_opens_its_test_split_once(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows sum to the metric, also over the last two evaluations, and are in the table.

    `--final` measures the saved weights on other text, is noted, refused again, and counted.
    """
    out, text = tmp_path / "sweeps" / "out", str(tmp_path / "text.txt")
    data = f"data={{use: text, path: {text}, test_division: 0.2}}"
    plan = make_plan(vary={"train.learning_rate": (0.01, 0.1)}, seeds=2, last=2, overrides=(data,))
    record, _ = run(plan, plugins, out)
    trial = record.of("learning_rate=0.1")[0]
    kept, metrics = last_rows(trial.folder / "run" / "rows", 1), trial.result()["metrics"]  # type: ignore[index]
    assert kept is not None
    assert kept.nats.sum() / kept.targets.sum() == pytest.approx(metrics["val_loss"], rel=1e-6)
    table = tabulate(record)
    row = next(row for row in table.rows if row.name == "learning_rate=0.1")
    both = trial.items("val_loss", 2)
    assert both is not None
    assert both.nats.sum() / both.targets.sum() == pytest.approx(row.values[1], rel=1e-6)
    assert row.windows is not None
    assert row.windows > 0
    assert any("other seeds on the same windows" in line for line in noise(table))

    assert command(["ablate", "--final", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "opened once" in shown["standing"][0]
    tested = {row["name"]: row["values"] for row in shown["rows"]}
    assert tested["learning_rate=0.1"].keys() == {"1", "2"}
    assert tested["learning_rate=0.1"]["1"] != metrics["val_loss"]
    assert (out / "final" / "report.html").exists()
    assert [row["windows"] is not None for row in shown["rows"]].count(True) == 1
    entries = [e for e in Ledger(out.parent).read()[0] if e["kind"] == OPENING]
    assert [(e["opening"], e["folder"]) for e in entries] == [(1, "out")]
    with pytest.raises(StrawberryError, match=r"was opened once, on .* for out; --again"):
        final(out)
    assert command(["eval", str(trial.folder / "run"), "--split", "test"]) == 2
    assert "was opened once" in capsys.readouterr().err
    assert "opened 2 times" in tabulate(final(out, again=True)).standing[0]
    assert any("opened 2 times" in line for line in tabulate(record).standing)
    later = make_plan(vary={"train.learning_rate": (0.02, 0.1)}, seeds=1, overrides=(data,))
    later_table = tabulate(run(later, plugins, out.parent / "later")[0])
    assert any("had been opened before (2 times)" in line for line in later_table.standing)
    write_report(record)


def test_without_a_test_split_it_says_how(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """In one line, and nothing is noted."""
    plan = make_plan(vary={"train.learning_rate": (0.01, 0.1)}, seeds=1)
    run(plan, plugins, tmp_path / "sweeps" / "out")
    with pytest.raises(StrawberryError, match=r"has no test split: .*test_division: 0\.05"):
        final(tmp_path / "sweeps" / "out")
    assert not [e for e in Ledger(tmp_path / "sweeps").read()[0] if e["kind"] == OPENING]


def test_damaged_rows_are_told(tmp_path: Path) -> None:
    """A file that is not there is none; one that is damaged is named."""
    assert read_rows(tmp_path / "1.npz") is None
    (tmp_path / "1.npz").write_bytes(b"PK")
    with pytest.raises(StrawberryError, match=r"1\.npz: damaged"):
        read_rows(tmp_path / "1.npz")
