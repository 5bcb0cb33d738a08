"""The referee finds the cheats of more_cheats.py too, which were written to evade it."""

from pathlib import Path

import pytest

from strawberry.check import of_component
from strawberry.model import batch
from strawberry.plugin import Plugins
from strawberry.referee import audit
from tests.referee import more_cheats
from tests.support import some_slow

CHEATS = {
    "attention/Every96": "future",
    "attention/Every100": "future",
    "attention/Every127": "future",
    "attention/OnlyInTraining": "future",
    "attention/OneToken": "future",
    "attention/BeyondTheBlock": "future",
    "attention/Tiny": "future",
    "attention/ShutGate": "future",
    "attention/AfterCalls": "history",
    "attention/AfterSteps": "future",
    "attention/HalfInEvaluation": "future",
    "attention/DocumentsInTraining": "future",
    "attention/SecondDepth": "future",
    "attention/Ranks": "future",
    "attention/FromTheEnd": "future",
    "attention/Circular": "future",
    "attention/LongFilter": "future",
    "attention/Generator": "future",
    "attention/UnderNoise": "future",
    "attention/InGradients": "future",
    "attention/OnTheBoard": "history",
    "attention/OnTheClass": "history",
    "attention/Environment": "history",
    "attention/Closure": "history",
    "attention/Frames": "loss",
    "ffn/LowerLoss": "loss",
    "ffn/PatchesTheHead": "loss",
    "ffn/TrainsItself": "history",
    "ffn/HooksOthers": "history",
    "ffn/RowStatistics": "batch",
    "norm/MedianNorm": "future",
    "positional/Backwards": "future",
}
"""The kind of dependence by which each gives itself away."""
NOWHERE = {"Frames", "LowerLoss", "PatchesTheHead", "InGradients", "HooksOthers", "Backwards"}
"""Those that change another part, or nothing in a pass that keeps a record of each component."""

SLOW = (
    "attention/Every100",
    "attention/AfterCalls",
    "attention/AfterSteps",
    "attention/ShutGate",
    "attention/HalfInEvaluation",
    "attention/DocumentsInTraining",
    "ffn/PatchesTheHead",
    "ffn/TrainsItself",
    "ffn/RowStatistics",
)
"""What takes a second or more, and is found like others."""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load(files=[Path(more_cheats.__file__)])


@pytest.fixture(autouse=True)
def _what_cheats_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back afterwards what a cheat replaces."""
    monkeypatch.setattr(batch, "head_loss", batch.head_loss)
    monkeypatch.setenv("CHEATS_LAST", "0")


@pytest.mark.parametrize("name", some_slow(CHEATS, SLOW))
def test_a_cheat_that_hides_is_found(name: str, plugins: Plugins) -> None:
    """The first breach is of the cheat's kind, and names the cheat where a pass shows it."""
    kind, _, short = name.partition("/")
    model, lengths = of_component(kind, short, plugins=plugins).long()
    every = audit(model, lengths, compiled=False)
    breach = next(m.breach for m in every if m.breach is not None)
    assert breach.kind == CHEATS[name]
    if short not in NOWHERE:
        assert short in breach.place
