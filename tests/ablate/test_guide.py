"""The guide to ablations is true: plans can be run, commands are real, no key is left out."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from strawberry.ablate.axes import parse_axis
from strawberry.ablate.cells import cells
from strawberry.ablate.plan import Plan
from strawberry.ablate.planfile import make_plan
from strawberry.ablate.suite import make_suite
from strawberry.cli.app import run
from strawberry.plugin import Plugins

FOLDER = Path(__file__).parents[2] / "recipes/ablations"
GUIDE = (FOLDER / "README.md").read_text()
PLANS = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", GUIDE, flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("text", PLANS)
def test_plans(text: str, plugins: Plugins, tmp_path: Path) -> None:
    """Each has cells, all of which can be built."""
    path = tmp_path / "ablations" / "plan.yaml"
    path.parent.mkdir()
    path.write_text(text)
    for recipe in FOLDER.parent.glob("*.yaml"):
        (tmp_path / recipe.name).write_text(recipe.read_text())
    plans = list(make_suite(path, {}).values()) or [make_plan(path, {})]
    for plan in plans:
        _, made = cells(plan, plugins)
        assert len(made) >= 2
        assert [cell.skipped for cell in made if cell.recipe is None] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if "reproduce" not in c])
def test_commands(command: str, plugins: Plugins) -> None:
    """The options are those of the command line, and the cells can be built."""
    words = shlex.split(command)
    assert words[:2] == ["strawberry", "ablate"]
    options = list(zip(words[3::2], words[4::2], strict=True))
    vary = dict(parse_axis(value) for name, value in options if name == "--vary")
    mode = dict(options).get("--mode")
    plan = make_plan(FOLDER.parents[1] / words[2], {"vary": vary, "mode": mode})
    assert len(cells(plan, plugins)[1]) >= 2


def test_options_are_real(capsys: pytest.CaptureFixture[str]) -> None:
    """Every `--option` of the guide is one of `strawberry ablate --help`."""
    assert run(["ablate", "--help"]) == 0
    known = capsys.readouterr().out
    for option in set(re.findall(r"(?<![-|])--[a-z][a-z-]+", GUIDE)):
        assert option in known, option


def test_no_key_is_left_out() -> None:
    """Each field of a plan stands in the table."""
    said = set(re.findall(r"`(\w+)`", GUIDE[GUIDE.index("| key") : GUIDE.index("## The table")]))
    names = {field.name for field in dataclasses.fields(Plan)}
    assert names - {"recipe", "overrides", "folder"} <= said


def test_every_plan_and_task_is_listed(plugins: Plugins) -> None:
    """A file or a task that is added gets its line."""
    for path in FOLDER.glob("*.yaml"):
        assert f"`{path.name}`" in GUIDE
    for entry in plugins.registry.entries("task"):
        assert f"`{entry.name}`" in GUIDE
