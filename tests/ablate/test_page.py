"""The page of an ablation: what is in it, and how it looks and behaves in a browser."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from strawberry.ablate.factors import Grid
from strawberry.ablate.preparing import prepare
from strawberry.ablate.record import Record
from strawberry.ablate.report import write_report
from strawberry.ablate.report.charts import cell_axis
from strawberry.ablate.report.levels import alone
from strawberry.ablate.report.series import _curve, kinds
from strawberry.ablate.report.summary import write_summary
from strawberry.ablate.sweep import Sweep, SweepObserver, make_executor
from strawberry.plugin import Plugins
from tests.ablate.conftest import PlanMaker

BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
ATTENTION = ({"use": "mha", "n_head": 2}, "aft_simple")


@pytest.fixture
def page(make_plan: PlanMaker, plugins: Plugins, tmp_path: Path) -> Path:
    """That of a grid of two factors and two seeds."""
    vary = {"model.stack.*.attention": ATTENTION, "model.stack.*.ffn": ("swiglu", "none")}
    plan = make_plan(vary=vary, seeds=2)
    executor = make_executor("local", plugins)
    record = Sweep(prepare(plan, plugins), executor, tmp_path / "out", SweepObserver()).run()
    (file,) = (file for file in write_report(record) if file.suffix == ".html")
    return file


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Headless Chromium, which logs what it says and what it fetches."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver here")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def opened(browser: Any, page: Path, width: int, *, dark: bool = False) -> None:
    """Open the page at this width and wait until its pictures are drawn."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    deadline = time.monotonic() + 60
    while not browser.execute_script("return document.documentElement.dataset.drawn"):
        assert time.monotonic() < deadline, browser.get_log("browser")
        time.sleep(0.1)


BEYOND = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, pre')
  && e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML.slice(0, 200));
"""


@pytest.mark.slow
@pytest.mark.browser
def test_in_a_browser(page: Path, browser: Any) -> None:
    """Nothing sticks out at any width, nothing is fetched, and what can be switched switches."""
    for width in (400, 1300, 1900):
        for dark in (False, True):
            opened(browser, page, width, dark=dark)
            assert browser.execute_script(BEYOND) == [], width
    wide = "return [...document.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth)"
    assert max(browser.execute_script(wide)) <= 0  # at 1,900 px every column is seen
    lines = "return document.querySelectorAll('#chart-curves .mark-line path').length"
    before = browser.execute_script(lines)
    assert before == 4 * 2 + 4  # four cells of two seeds, and their means
    browser.execute_script("document.querySelector('input[data-cell]').click()")
    deadline = time.monotonic() + 20
    while browser.execute_script(lines) != before - 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert browser.execute_script(lines) == before - 3
    names = "return [...document.querySelectorAll('table.sortable tbody')[0].rows]"
    names += ".map(r => r.cells[0].textContent)"
    browser.execute_script("document.querySelector('table.sortable th button').click()")
    found = browser.execute_script(names)
    assert found == sorted(found)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events
             if e["method"] == "Network.requestWillBeSent"}  # fmt: skip
    own = ("data:", "blob:", "chrome:")  # the browser's first tab is a page of its own
    assert {url for url in asked if not url.startswith(own)} == {page.as_uri()}


@pytest.mark.slow
@pytest.mark.browser
def test_a_suite_in_a_browser(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, browser: Any
) -> None:
    """The page of two tables fits every width, and cells are switched off in all of its curves."""
    records = {}
    for name, width in (("narrow", 8), ("wide", 24)):
        plan = make_plan(vary={"model.stack.*.attention": ATTENTION}, seeds=2,
                         overrides=(f"model.n_embd={width}",))  # fmt: skip
        executor = make_executor("local", plugins)
        sweep = Sweep(prepare(plan, plugins), executor, tmp_path / name, SweepObserver())
        records[name] = sweep.run()
    page = next(file for file in write_summary(tmp_path, records) if file.suffix == ".html")
    for width in (400, 1300, 1900):
        for dark in (False, True):
            opened(browser, page, width, dark=dark)
            assert browser.execute_script(BEYOND) == [], width
    lines = "return [0, 1].map(n => document.querySelectorAll("
    lines += "`#chart-curves${n} .mark-line path`).length)"
    assert browser.execute_script(lines) == [2 * 2 + 2] * 2
    browser.execute_script("document.querySelector('input[data-cell]').click()")
    deadline = time.monotonic() + 20
    while browser.execute_script(lines) != [3, 3] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert browser.execute_script(lines) == [3, 3]
    assert browser.get_log("browser") == []


def test_holds_all_that_it_shows(page: Path) -> None:
    """Curves of every trial, factors, the recipe's diff, and a line for each trial; it is small."""
    text = page.read_text()
    assert len(text) < 3_000_000
    found = re.search(
        r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL
    )
    assert found is not None
    charts = json.loads(found.group(1))
    assert {"differences", "curves", "factor0", "factor1", "cost0"} <= charts.keys()
    curves = charts["curves"]["data"]["values"]
    assert len(curves) == 4 * 2 * 2  # cells, seeds, metric and training loss
    assert text.count("--reproduce") == 4 * 2
    assert 'class="plus">+' in text
    assert "default-src 'none'" in text  # nothing can be fetched


def test_the_markdown_has_pictures_and_noise(page: Path) -> None:
    """Both say where the noise is; each picture of `report.md` is an SVG beside it, with names."""
    text = page.with_name("report.md").read_text()
    paths = re.findall(r"^!\[.+\]\((pictures/.+\.svg)\)$", text, re.MULTILINE)
    assert {"pictures/differences.svg", "pictures/curves.svg", "pictures/parameters.svg"} < {*paths}
    first = "Intervals cover the noise of seeds. Seeds vary initial weights, data order, dropout."
    assert text.split("\n")[2] == first
    assert f"<p>{first}</p>" in page.read_text()
    assert "## Noise\n\n- Noise of seeds: " in text
    assert "<h2>Noise</h2>" in page.read_text()
    for path in paths:
        drawn = page.with_name("report.md").parent / path
        assert ET.parse(drawn).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    for cell in ("attention=mha(n_head=2) ffn=none", "attention=aft_simple ffn=swiglu"):
        assert cell in (page.parent / "pictures/curves.svg").read_text()


def test_the_training_loss_stands_in() -> None:
    """A run that was never evaluated still has a curve; its seconds follow from its speed."""
    rows = [{"step": s, "loss": 9.0 - s, "tokens_per_second": 50.0} for s in (1, 2, 4)]
    budget = {"tokens": 400, "steps": 4, "flops_per_token": 10}
    assert _curve(rows, "val_loss", budget, 20) is None
    curve = _curve(rows, "loss", budget, 20)
    assert curve is not None
    assert (curve["step"], curve["value"]) == ([1, 2, 4], [8.0, 7.0, 5.0])
    assert curve["seconds"] == [2.0, 4.0, 8.0]
    assert curve["flops"] == 1000


@pytest.mark.parametrize(("evaluations", "first"), [(1, "loss"), (2, "val_loss")])
def test_what_is_shown_first_has_a_curve(evaluations: int, first: str) -> None:
    """The metric, unless each run was evaluated once; its single points can be chosen."""
    curves = [{"what": "val_loss", "step": [1, 2][:evaluations]}, {"what": "loss", "step": [1, 2]}]
    assert kinds(curves)[0] == first
    assert set(kinds(curves)) == {"val_loss", "loss"}


def test_levels_differ_in_nothing_else() -> None:
    """A combination that lacks a level takes no part in that factor's means."""
    values = {(0, 0): {1: 1.0}, (1, 0): {1: 2.0}, (0, 1): {1: 10.0}}
    assert alone(Grid({"a": ["x", "y"], "b": ["p", "q"]}, values), 0) == [
        {"level": "x", "seed": 1, "value": 1.0},
        {"level": "y", "seed": 1, "value": 2.0},
    ]


@pytest.mark.parametrize("program", ["/x/strawberry/__main__.py", "/x/bin/strawberry", "sweep.py"])
def test_the_command_is_one_that_can_be_typed(program: str) -> None:
    """However the program was started it is `strawberry`; a script of one's own stays."""
    record = Record(Path(), {"command": [program, "ablate", "a b.yaml"]})
    name = program if program == "sweep.py" else "strawberry"
    assert record.command == f"{name} ablate 'a b.yaml'"


def test_long_names_are_few_lines() -> None:
    """A cell's name on an axis is wrapped to lines that its row has room for."""
    names = ["plain, as many FLOPs as cycle", "a " * 80, "mha", "x" * 90]
    text = cell_axis(names)["labelExpr"].removesuffix("[datum.label]")
    lines = json.loads(text[1:-1])
    assert lines["mha"] == ["mha"]
    assert lines[names[0]] == ["plain, as many FLOPs as", "cycle"]
    assert all(len(each) <= 3 for each in lines.values())
