"""Suites: a table for each setting, one summary, and the plans that come along."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.ablate.cells import cells
from strawberry.ablate.planfile import is_plan, make_plan
from strawberry.ablate.preparing import prepare
from strawberry.ablate.report.summary import summarise, write_summary
from strawberry.ablate.suite import make_suite, read_suite, suite_names, write_suite
from strawberry.cli.app import run
from strawberry.data import open_dataset
from strawberry.errors import RecipeError, StrawberryError
from strawberry.plugin import Plugins
from strawberry.runs.ledger import OPENING, Ledger
from tests.ablate.test_sweep import scripted

PLANS = sorted((Path(__file__).parents[2] / "recipes/ablations").glob("*.yaml"))


@pytest.fixture
def suite_file(recipe_file: Path) -> Path:
    """Two tables over two networks, with scores of either."""
    content = {
        "ablate": recipe_file.name,
        "set": {"train.max_iters": 4},
        "vary": {"ffn": ["swiglu", "geglu", {"use": "mlp", "n_ffn": 24}]},
        "seeds": 3,
        "metric": "val_loss",
        "suite": {"narrow": {"model.n_embd": 8}, "wide": {"model.n_embd": 32}},
    }
    path = recipe_file.with_name("suite.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_each_table_is_a_plan(suite_file: Path, plugins: Plugins) -> None:
    """With its own settings over the plan's, the command line's over both, alpha shared out."""
    assert suite_names(suite_file) == ["narrow", "wide"]
    plans = make_suite(suite_file, {"overrides": ("train.max_iters=5",), "seeds": 2})
    assert {name: plan.alpha for name, plan in plans.items()} == {"narrow": 0.025, "wide": 0.025}
    for name, width in (("narrow", 8), ("wide", 32)):
        prepared = prepare(plans[name], plugins)
        assert prepared.base.model.n_embd == width
        assert prepared.base.train.max_iters == 5
        assert plans[name].seeds == 2


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "suite.yaml:.*suite: expected a mapping from table names"),
        ({"a": 3}, r"suite\.a: expected a mapping of paths"),
        ({"a/b": {}}, "a table's name must be a folder name"),
        ({"..": {}}, "a table's name must be a folder name"),
    ],
)
def test_wrong_suites(suite_file: Path, tables: Any, message: str) -> None:
    """Each at its place."""
    content = yaml.safe_load(suite_file.read_text()) | {"suite": tables}
    suite_file.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=message):
        make_suite(suite_file, {})


def test_the_summary_has_all_tables(suite_file: Path, plugins: Plugins, tmp_path: Path) -> None:
    """A column for each, ranked by the mean over both, with what is missing said."""
    losses = {8: {"swiglu": 3.0, "geglu": 2.0, "mlp": 4.0}, 32: {"swiglu": 2.0, "geglu": 1.5}}

    def loss(recipe: Any) -> float | None:
        ffn = recipe["model"]["stack"][0]["stack"][0]["ffn"]["use"].partition("/")[2]
        value = losses[recipe["model"]["n_embd"]].get(ffn)
        noise = 1e-4 * (recipe["seed"] * len(ffn) % 3 - 1)  # equal differences would prove nothing
        return None if value is None else value + recipe["seed"] / 1000 + noise

    out = tmp_path / "out"
    plans = make_suite(suite_file, {})
    write_suite(out, suite_file, list(plans))
    for name, plan in plans.items():
        scripted(plan, plugins, out / name, loss)
    records = read_suite(out)
    summary = summarise(records)
    assert list(summary.rows) == ["ffn=geglu", "ffn=swiglu", "ffn=mlp(n_ffn=24)"]
    assert summary.mean("ffn=geglu") == pytest.approx(1.752)
    assert summary.mean("ffn=mlp(n_ffn=24)") is None
    files = write_summary(out, records)
    text = files[0].read_text()
    assert "| ffn=geglu | 2.002 + | 1.502 + | 1.752 |" in text
    assert "| ffn=swiglu | 3.002 | 2.002 | 2.502 |" in text
    assert "| ffn=mlp(n_ffn=24) | 4.002 - | failed | - |" in text
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert len(rows) == 6
    page = files[2].read_text()
    assert 'href="narrow/report.html"' in page
    assert len(page) < 3_000_000
    drawn = re.search(
        r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL
    )
    assert drawn is not None
    charts = json.loads(drawn.group(1))
    assert {"overview", "differences0", "differences1"} <= charts.keys()
    shares = {
        (point["table"], point["cell"]): point["difference"]
        for point in charts["overview"]["data"]["values"]
    }
    assert shares["narrow", "ffn=geglu"] == pytest.approx(-100 / 3.002, rel=1e-3)
    assert shares["wide", "ffn=geglu"] == pytest.approx(-50 / 2.002, rel=1e-3)
    assert (out / "wide" / "report.html").exists()


def test_a_suite_through_the_command_line(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run, looked at again, and as JSON; the dry run says what it would be."""
    out = tmp_path / "out"
    content = yaml.safe_load(suite_file.read_text()) | {"vary": {"ffn": ["swiglu", "geglu"]}}
    suite_file.write_text(yaml.safe_dump(content, sort_keys=False))
    words = [str(suite_file), "--seeds", "1", "--set", "train.max_iters=2"]
    assert run(["ablate", *words, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "narrow" in shown
    said = "".join(shown.split("\n"))
    assert said.index("narrow/report.html") < said.index("wide/report.html")
    assert "suite.html" in "".join(shown.split("\n"))
    assert run(["report", str(out), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert set(found["tables"]) == {"narrow", "wide"}
    assert run(["ablate", *words, "--dry-run", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"narrow", "wide"}
    with pytest.raises(StrawberryError, match="contains no suite"):
        read_suite(tmp_path)


def test_a_suite_opens_its_test_split_once(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All tables have their part in one opening; a second one is refused, or counted."""
    out = tmp_path / "sweeps" / "out"
    content = yaml.safe_load(suite_file.read_text()) | {"vary": {"ffn": ["swiglu", "geglu"]}}
    suite_file.write_text(yaml.safe_dump(content, sort_keys=False))
    data = f"data={{use: text, path: {tmp_path / 'text.txt'}, test_division: 0.2}}"
    words = [str(suite_file), "--seeds", "1", "--set", "train.max_iters=2", "--set", data]
    assert run(["ablate", *words, "--out", str(out)]) == 0
    capsys.readouterr()
    assert run(["ablate", "--final", str(out), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert ["opened once" in table["standing"][0] for table in tables] == [True, True]
    assert [len(row["values"]) for table in tables for row in table["rows"]] == [1, 1, 1, 1]
    assert run(["ablate", "--final", str(out)]) == 2
    assert run(["ablate", "--final", str(out), "--again"]) == 0
    openings = [e for e in Ledger(out.parent).read()[0] if e["kind"] == OPENING]
    assert [(e["opening"], e["folder"]) for e in openings] == [(1, "out"), (2, "out")]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_that_come_along_can_be_run(path: Path, plugins: Plugins) -> None:
    """Every suite of tasks has its data, and every plan its cells, with the plugin beside it."""
    assert is_plan(path)
    beside = path.with_suffix(".py")
    plugins = Plugins.load(files=[beside], disabled=["fla"]) if beside.exists() else plugins
    plans = make_suite(path, {})
    for plan in plans.values() or [make_plan(path, {})]:
        _, made = cells(plan, plugins)
        assert [cell.skipped for cell in made if cell.recipe is None] == []
        recipe = made[0].recipe
        assert recipe is not None
        if not plans or "task" not in recipe.data.fields:
            continue
        dataset = open_dataset(recipe)
        assert dataset.exact
        dataset.rows("train", 12, 4, block_size=recipe.model.block_size, seed=1)
