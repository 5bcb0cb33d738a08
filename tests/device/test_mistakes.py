"""Ten seeded mistakes: each is found, with its line, on a machine without a GPU."""

import inspect
from pathlib import Path

import pytest
import torch

from strawberry.check import of_component, run_one
from strawberry.check.pretend import NAME
from strawberry.contracts import Attention
from strawberry.contracts.numbers import WITHOUT_FLOAT64
from strawberry.plugin import Plugins
from tests.device import mistakes

FILE = Path(mistakes.__file__)
RAISE = {"MaskOnTheCPU", "StateOnTheCPU", "BufferNotRegistered", "RangeWithoutDevice",
         "OtherGenerator", "AsksNumpy"}  # fmt: skip
"""The mistakes with which a GPU stops at once; with the others it only waits."""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load(files=[FILE])


def line_of(made: type) -> int:
    lines, first = inspect.getsourcelines(made)
    (number,) = [number for number, line in enumerate(lines) if line.endswith("# here\n")]
    return first + number


@pytest.mark.parametrize("name", mistakes.MISTAKES)
def test_a_mistake_is_found_with_its_line(name: str, plugins: Plugins) -> None:
    """The `device` check fails, and names the file and the line that is wrong."""
    made = mistakes.MISTAKES[name]
    kind = "attention" if issubclass(made, Attention) else "ffn"

    outcome = run_one(of_component(kind, name, plugins=plugins), "device")

    assert outcome.verdict == "failed"
    assert f"{FILE}:{line_of(made)}: " in outcome.detail
    assert ("Error" in outcome.detail) == (name in RAISE)


def test_there_are_ten() -> None:
    """As many mistakes as the file says."""
    assert len(mistakes.MISTAKES) == 10


def test_the_sound_component_passes(plugins: Plugins) -> None:
    """What the mistakes are made in is no mistake, and the check leaves no trace."""
    outcome = run_one(of_component("ffn", "Plain", plugins=plugins), "device")

    assert outcome.verdict == "passed", outcome.detail
    assert NAME not in WITHOUT_FLOAT64
    assert torch.accelerator.current_accelerator(check_available=True) is None
