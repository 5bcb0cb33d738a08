"""The page of a ladder: what is in it, and how it looks in a browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from strawberry.ladder.report import write_report
from strawberry.ladder.results import results_of
from tests.ablate.test_page import BEYOND, browser, opened
from tests.ladder.scripted import Made, climb

__all__ = ["browser"]


@pytest.fixture
def page(made: Made, tmp_path: Path) -> Path:
    """That of four rungs of two architectures."""
    files = write_report(results_of(climb(*made, tmp_path / "out")))
    return next(file for file in files if file.suffix == ".html")


def test_holds_all_that_it_shows(page: Path) -> None:
    """Curves with bands, a point for each run, what is extrapolated, gains, and exact commands."""
    text = page.read_text()
    found = re.search(
        r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL
    )
    assert found is not None
    charts = json.loads(found.group(1))
    assert set(charts) == {"losses", "gains"}
    layers = [layer.get("data", {}).get("values", []) for layer in charts["losses"]["layer"]]
    assert sum(len(values) == 4 * 2 * 2 for values in layers) == 1  # rungs, architectures, seeds
    curve = max(layers, key=len)
    assert all(row["low"] <= row["loss"] <= row["high"] for row in curve)
    assert {row["extrapolated"] for row in curve} == {True, False}
    assert "strawberry ladder fit" in text
    assert "default-src 'none'" in text  # nothing can be fetched


@pytest.mark.slow
@pytest.mark.browser
def test_in_a_browser(page: Path, browser: Any) -> None:
    """Nothing sticks out at any width, in light or dark, and both pictures are drawn."""
    for width in (400, 1300, 1900):
        for dark in (False, True):
            opened(browser, page, width, dark=dark)
            assert browser.execute_script(BEYOND) == [], width
    drawn = (
        "return document.querySelectorAll('#chart-losses svg.marks, #chart-gains svg.marks').length"
    )
    assert browser.execute_script(drawn) == 2
    assert browser.get_log("browser") == []
