"""The findings: each plan can still be run, and a page with its verdict is linked by the table."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from strawberry.ablate.cells import cells
from strawberry.ablate.planfile import make_plan
from strawberry.ablate.suite import make_suite
from strawberry.ladder.plan import read_ladder
from strawberry.plugin import Plugins

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes/findings"
TABLE = (ROOT / "recipes/FINDINGS.md").read_text()
PLANS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "text.yaml")
PAGES = sorted(FOLDER.glob("*.md"))


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """Those of this environment, and the files that the pages' commands name."""
    named = {file for page in PAGES for file in re.findall(r"--plugin (\S+)", page.read_text())}
    return Plugins.load(files=[ROOT / file for file in sorted(named)])


def test_every_page_has_a_plan_and_every_plan_is_listed() -> None:
    """A finding can be run again; a plan that has not been run is named as such."""
    assert {page.stem for page in PAGES} <= {path.stem for path in PLANS}
    for path in PLANS:
        assert f"(findings/{path.stem}." in TABLE


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_plan_can_be_run(page: Path, plugins: Plugins) -> None:
    """Its cells can be built; of a suite, those of the first table."""
    path = page.with_suffix(".yaml")
    assert f"recipes/findings/{path.name}" in page.read_text()
    if path.stem.startswith("ladder"):
        assert read_ladder(path, {}, plugins).how.rungs > 3
        return
    tables = list(make_suite(path, {}, plugins).values()) or [make_plan(path, {}, plugins=plugins)]
    made = cells(tables[0], plugins)[1]
    assert len(made) >= 2
    assert [cell.skipped for cell in made if cell.recipe is None] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_table_has_its_verdict(page: Path) -> None:
    """A page says the bar and the verdict, and the row that links it says the same verdict."""
    text = page.read_text()
    assert "**Bar**" in text
    (verdict,) = re.findall(r"^\*\*Verdict: ([a-z ]+)\.\*\*", text, re.MULTILINE)
    assert verdict in {"reproduced", "not reproduced", "undecided"}
    (row,) = [line for line in TABLE.splitlines() if f"(findings/{page.name})" in line]
    assert f"| {verdict} |" in row


RECORDED = [page for page in PAGES if not page.stem.startswith(("ladder", "leak", "null"))]


@pytest.mark.parametrize("page", RECORDED, ids=lambda path: path.stem)
def test_the_tables_are_those_of_the_record(page: Path) -> None:
    """Every row has the seeds, mean, deviation, difference and verdict of a row of the record."""
    with (FOLDER / "records" / f"{page.stem}.csv").open() as file:
        recorded = [
            (
                f"{row['seeds']}/{row['planned']}",
                f"{float(row['mean']):.4f}",
                f"{float(row['sd']):.4f}",
                f"{float(row['difference']):+.4f}" if row["difference"] else "",
                row["verdict"],
            )
            for row in csv.DictReader(file)
        ]
    lines = re.findall(r"^\|[^|]*(\| \d+/\d+ \|.*)", page.read_text(), re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")[1:8]] for line in lines]
    assert sorted((*row[:4], row[6]) for row in rows) == sorted(recorded)


def test_the_count_of_trials_is_that_of_the_pages() -> None:
    """Each page says how many it took, and the table how many they are together."""
    counts = [
        re.findall(r"^([\d,]+) trials, [\d.]+ minutes", page.read_text(), re.MULTILINE)
        for page in PAGES
    ]
    assert all(len(count) == 1 for count in counts)
    (told,) = re.findall(r"hours of trials \(([\d,]+) of them\)", TABLE)
    assert int(told.replace(",", "")) == sum(int(count.replace(",", "")) for (count,) in counts)
