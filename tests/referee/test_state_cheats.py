"""The referee finds the cheats of state_cheats.py, each by its kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from strawberry.check import of_component
from strawberry.plugin import Plugins
from strawberry.referee import audit
from tests.referee import state_cheats
from tests.support import some_slow

CHEATS = {
    "attention/ThreadLocal": "history",
    "attention/OnDisk": "history",
    "attention/Destructor": "history",
    "attention/KeptUse": "history",
    "attention/Buffered": "history",
    "attention/NumpyState": "future",
    "attention/FirstCall": "history",
    "attention/HonestTwin": "future",
    "attention/GradientHook": "future",
    "attention/HashOfTokens": "future",
    "attention/Overflow": "future",
    "attention/SoftMask": "future",
    "attention/CircularPad": "future",
    "attention/SortedBatch": "batch",
    "attention/PatchesTorch": "code",
    "attention/HooksAll": "future",
    "weights/FromTheBatch": "future",
    "weights/Hypernetwork": "future",
    "weights/LearnsInPasses": "history",
    "router/AsksTheNext": "future",
    "router/AsksTheBatch": "batch",
    "norm/RunningNorm": "history",
    "norm/ChunkNorm": "future",
    "positional/ReadsTheCaller": "future",
    "ffn/FirstPasses": "history",
}
"""The kind of dependence by which each gives itself away."""
ELSEWHERE = {
    "FirstCall",
    "FirstPasses",
    "GradientHook",
    "PatchesTorch",
    "HooksAll",
    "ReadsTheCaller",
}
"""Those whose own outputs don't show it: they change another part, or their copies are honest."""

SLOW = (
    "router/AsksTheBatch",
    "attention/SortedBatch",
    "attention/HooksAll",
    "attention/PatchesTorch",
    "weights/LearnsInPasses",
    "ffn/FirstPasses",
)
"""What takes a second or more, and is found like others."""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load(files=[Path(state_cheats.__file__)])


@pytest.fixture(autouse=True)
def _what_cheats_change(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back afterwards what a cheat replaces, and what it leaves."""
    monkeypatch.setattr(F, "silu", F.silu)
    yield
    torch_module._global_forward_hooks.clear()
    state_cheats.FILE.unlink(missing_ok=True)


@pytest.mark.parametrize("name", some_slow(CHEATS, SLOW))
def test_a_cheat_by_state_is_found(name: str, plugins: Plugins) -> None:
    """The first breach is of the cheat's kind, and names it where its outputs show it."""
    kind, _, short = name.partition("/")
    model, lengths = of_component(kind, short, plugins=plugins).long()
    every = audit(model, lengths, compiled=False)
    breach = next(m.breach for m in every if m.breach is not None)
    assert breach.kind == CHEATS[name]
    if short not in ELSEWHERE and kind not in ("weights", "router"):
        assert short in breach.place
