"""The referee finds each cheat of cheats.py, says of which kind it is, and where it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from strawberry.check import of_component
from strawberry.model.build import build
from strawberry.plugin import Plugins
from strawberry.referee import Measurement, audit
from tests.model import keepers
from tests.support import some_slow

CHEATS = {
    "attention/Chunk2": "future",
    "attention/Chunk3": "future",
    "attention/Chunk16": "future",
    "attention/Chunk64": "future",
    "attention/Chunk128": "future",
    "attention/SequenceMean": "future",
    "attention/Sorted": "future",
    "attention/OffByOne": "future",
    "attention/SometimesOffByOne": "future",
    "attention/FarAhead": "future",
    "attention/OnlyWhenLong": "future",
    "attention/OnlyInEvaluation": "future",
    "attention/OnlyWithoutGradients": "future",
    "attention/OnlyCompiled": "future",
    "attention/OnlyInHalf": "future",
    "attention/RefusesWide": "future",
    "attention/OnlyWithDocuments": "future",
    "attention/Shallow": "future",
    "attention/Gated": "future",
    "attention/Ids": "future",
    "attention/AheadInCache": "future",
    "attention/Memo": "future",
    "attention/Spectrum": "future",
    "attention/Reversed": "future",
    "attention/Rounding": "future",
    "norm/SequenceNorm": "future",
    "norm/BatchNorm": "batch",
    "positional/Mirror": "future",
    "positional/Mailbox": "history",
    "ffn/FutureFFN": "future",
    "ffn/DropoutChannel": "future",
    "ffn/OtherRows": "batch",
    "ffn/RowsInEvaluation": "batch",
    "ffn/Capacity": "future",
    "ffn/LastBatch": "history",
    "ffn/TrainsInEvaluation": "history",
    "ffn/Clock": "history",
}
"""The kind of dependence by which each gives itself away."""
NOWHERE = {"attention/OnlyCompiled", "attention/AheadInCache"}
"""Those whose place the passes with a record of each component don't show."""
SLOW = ("ffn/RowsInEvaluation", "norm/BatchNorm", "ffn/TrainsInEvaluation")
"""What takes seconds, and is found like others."""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load(files=[Path(__file__).with_name("cheats.py")])


def measured(name: str, plugins: Plugins) -> Iterator[Measurement]:
    kind, _, short = name.partition("/")
    model, lengths = of_component(kind, short, plugins=plugins).long()
    return audit(model, lengths)


@pytest.mark.parametrize("name", some_slow(CHEATS, SLOW))
def test_a_cheat_is_found_with_its_kind_and_place(name: str, plugins: Plugins) -> None:
    """The first breach is of the cheat's kind, and names the cheat where a pass shows it."""
    breach = next(m.breach for m in measured(name, plugins) if m.breach is not None)
    assert breach.kind == CHEATS[name]
    if name not in NOWHERE and name.partition("/")[0] != "positional":
        assert name.partition("/")[2] in breach.place


def test_what_does_not_cheat_is_not_accused(plugins: Plugins) -> None:
    """The mixer that all cheats begin from passes every measurement, in every way it runs."""
    seen = list(measured("attention/Honest", plugins))
    assert [str(m.breach) for m in seen if m.breach] == []
    assert len({m.situation for m in seen}) >= 6


def test_what_refuses_to_run_so_is_not_accused_of_it(plugins: Plugins) -> None:
    """A mixer for half precision alone is measured there; elsewhere its refusal is told."""
    seen = list(measured("attention/HonestHalf", plugins))
    assert [str(m.breach) for m in seen if m.breach] == []
    assert {m.situation for m in seen if not m.refusal} == {
        "in bfloat16",
        "in bfloat16, in training",
    }
    assert {m.refusal for m in seen} == {"", "this mixer runs in half precision alone"}


def test_declared_exceptions_are_told_as_such() -> None:
    """Expert choice looks ahead in training and says so; in evaluation it doesn't."""
    model = build(of_component("router", "expert_choice").recipe)
    seen = list(audit(model, [64], kinds=["future"]))
    assert any(m.breach for m in seen)
    assert all(m.declared for m in seen if m.breach)


def test_what_recomputing_gets_wrong_is_found_with_its_line() -> None:
    """A value left on a class for the next block is another one when blocks are computed again."""
    plugins = Plugins.load(files=[Path(keepers.__file__)])
    model, lengths = of_component("attention", "OnTheClass", plugins=plugins).long()
    seen = list(audit(model, lengths[:1], kinds=["history"], compiled=False))
    breaches = [str(m.breach) for m in seen if m.situation == "with recomputed activations"]
    line = Path(keepers.__file__).read_text().split("OnTheClass.left = v")[0].count("\n") + 1
    assert f"keepers.py:{line} (left)" in breaches[0]


@pytest.mark.parametrize("name", ["InMemo", "InOnce", "OnItself"])
def test_what_recomputing_gets_right_is_not_accused(name: str) -> None:
    """Values kept in the memo, in `once`, or read where they were written, are all right."""
    plugins = Plugins.load(files=[Path(keepers.__file__)])
    model, lengths = of_component("attention", name, plugins=plugins).long()
    seen = audit(model, lengths[:1], kinds=["history"], compiled=False)
    assert [str(m.breach) for m in seen if m.breach] == []
