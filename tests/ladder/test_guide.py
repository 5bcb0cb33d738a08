"""The guide to ladders is true: its plans can be read, its options are real, no key is left out."""

import dataclasses
import re
from pathlib import Path

import pytest

from strawberry.cli.app import run
from strawberry.ladder.plan import LadderFields, read_ladder
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes/ladders"
GUIDE = (FOLDER / "README.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_plans(path: Path, plugins: Plugins) -> None:
    """Each has four rungs and one that is held out, three seeds, and stands in the guide."""
    plan = read_ladder(path, {}, plugins)
    assert (plan.how.rungs, plan.how.hold_out, plan.plan.seeds) == (5, 1, 3)
    assert f"`{path.name}`" in GUIDE


def test_blocks(plugins: Plugins, tmp_path: Path) -> None:
    """The plan of the guide is one, and its `scale` one of the llama's."""
    plan, scale = BLOCKS
    (tmp_path / "ladders").mkdir()
    (tmp_path / "ladders/plan.yaml").write_text(plan)
    llama = (FOLDER.parent / "llama.yaml").read_text()
    (tmp_path / "llama.yaml").write_text(llama + scale)
    assert read_ladder(tmp_path / "ladders/plan.yaml", {}, plugins).how.hold_out == 1
    assert len(load_recipe(tmp_path / "llama.yaml", plugins=plugins).scale) == 4


def test_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Every key of a plan stands in the guide, and every option of the guide in the help."""
    for item in dataclasses.fields(LadderFields):
        assert f"`{item.name}`" in GUIDE
    known = ""
    for arguments in (
        ["ladder", "run", "--help"],
        ["ladder", "fit", "--help"],
        ["train", "--help"],
    ):
        assert run(arguments) == 0
        known += capsys.readouterr().out
    options = {option.rstrip("-") for option in re.findall(r"--[a-z][a-z-]+", GUIDE)}
    assert {option for option in options if option not in known} == set()
