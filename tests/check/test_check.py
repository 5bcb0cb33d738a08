"""Each check finds what it is there for, and nothing else does."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from strawberry.check import Subject, checks_for, costs, of_component, of_recipe, run
from strawberry.check.dependence import drawn
from strawberry.errors import StrawberryError
from strawberry.plugin import Kinds, Plugins
from tests.referee import cheats
from tests.support import TINY, recipe_of, some_slow

BROKEN = {
    "attention/Mean": None,
    "ffn/Plain": None,
    "attention/LeaksInTraining": "future",
    "attention/LeaksByRounding": "future",
    "attention/Blind": "past",
    "attention/ForgetsInCache": "cache",
    "attention/StopsInCache": "recurrence",
    "attention/Short": "learns",
    "ffn/Flat": "shape",
    "ffn/Coarse": "bfloat16",
    "ffn/Mixes": "batch",
    "ffn/Counts": "history",
    "ffn/Dead": "gradients",
    "ffn/Stops": "gradcheck",
    "ffn/Explodes": "stability",
    "ffn/Random": "determinism",
    "ffn/OffMeta": "meta",
    "ffn/Rebuilds": "device",
    "ffn/SavesCoarsely": "saved",
    "ffn/Hides": "counted",
    "ffn/Cubic": "memory",
    "ffn/Slow": "speed",
    "ffn/BreaksGraph": "compile",
}
"""What is wrong with each component of tests/check/broken.py; None where it is sound."""

OTHERS = {
    "optimizer/Steady": None,
    "optimizer/Climbs": "descends",
    "optimizer/LeavesVectors": "moves",
    "optimizer/Forgets": "resumes",
    "optimizer/Looks": "device",
    "schedule/Flat": None,
    "schedule/Beyond": "range",
    "data/Sound": None,
    "data/Narrow": "windows",
    "data/Drifts": "repeats",
    "data/Stuck": "draws",
    "data/Redraws": "order",
    "data/Reshuffles": "order",
    "data/Shares": "apart",
    "tokenizer/Bytewise": None,
    "tokenizer/Strips": "roundtrip",
    "tokenizer/Boasts": "ids",
    "tokenizer/Injectable": "special",
    "tokenizer/LosesInBatches": "pieces",
    "tokenizer/Renames": "saved",
    "task/Parity": None,
    "task/Unasked": "shape",
    "task/Counts": "repeats",
    "task/Guesses": "exact",
    "task/Constant": "varied",
    "task/Cramped": "room",
    "executor/InTurn": None,
    "executor/Loses": "runs",
    "executor/GivesUp": "failures",
    "executor/Abandons": "stops",
    "tracker/Silent": None,
    "tracker/FailsAtEvaluation": "told",
    "tracker/StartsOnce": "resumes",
    "tracker/Draws": "harmless",
    "averaging/Decayed": None,
    "averaging/Doubled": "mean",
    "averaging/Sized": "shards",
    "averaging/Forgets": "resumes",
    "curriculum/Halved": None,
    "curriculum/Counts": "function",
    "curriculum/TooMany": "bounds",
    "curriculum/FreezesNothing": "puts",
    "measure/Hits": None,
    "measure/Means": "adds",
    "measure/Wavers": "repeats",
    "measure/Trains": "leaves",
}
"""The same for tests/check/broken_others.py and broken_running.py."""


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    files = ("broken.py", "broken_others.py", "broken_running.py")
    return Plugins.load(files=[Path(__file__).with_name(file) for file in files])


def subject_of(name: str, plugins: Plugins) -> Subject:
    kind, _, short = name.partition("/")
    return of_component(kind, short, plugins=plugins)


def failed(
    subject: Subject, names: Iterable[str] | None = None, *, leave_out: tuple[str, ...] = ()
) -> dict[str, str]:
    names = [name for name in names or checks_for(subject.kind) if name not in leave_out]
    return {o.check: o.detail for o in run(subject, names) if o.verdict == "failed"}


@pytest.mark.parametrize(("attention", "expected"), [("Mean", {}), ("ForgetsInCache", {"cache"})])
def test_a_gate_at_zero_hides_nothing(attention: str, expected: set[str], plugins: Plugins) -> None:
    """Behind a gate that begins at zero, a sound cache passes and a broken one is found."""
    blocks = [{"repeat": 2, "attention": attention, "ffn": "mlp"}]
    model = {**TINY, "residual": "ShutGate", "positional": "none", "stack": blocks}
    subject = of_recipe(recipe_of(model, plugins=plugins))
    assert set(failed(subject, ("past", "cache"))) == set(expected)


def test_every_check_has_a_broken_component() -> None:
    """No check of any kind is without a component that shows it to work."""
    assert set(BROKEN.values()) - {None} == set(checks_for("ffn"))
    shown = {(name.partition("/")[0], check) for name, check in OTHERS.items() if check}
    kinds = {kind for kind, _ in shown}
    assert shown == {(kind, check) for kind in kinds for check in checks_for(kind)}
    assert {*kinds} == {kind for kind in Kinds().names if checks_for(kind) != checks_for("ffn")}


REFEREED = ("future", "batch", "history")
"""What the referee measures, which takes seconds for each component.

In the default suite it accuses no sound attention here and no honest component in tests/referee;
that it accuses none with another fault is a slow test.
"""

LONG = (*REFEREED, "device", "learns")
"""What takes half a second or more for each component."""

ALL = pytest.param(True, marks=pytest.mark.slow, id="all")
everything = pytest.mark.parametrize("everything", [pytest.param(False, id="most"), ALL])


@everything
@pytest.mark.parametrize("name", [name for name in BROKEN if name != "ffn/BreaksGraph"])
def test_one_fault_is_found_by_its_check_alone(
    name: str, everything: bool, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All checks but compilation run; that of the fault fails, and no other.

    The default suite leaves out the long ones, unless it is the fault's.
    """
    monkeypatch.setattr(costs, "SLOWEST", 5.0 if name == "ffn/Slow" else 1e9)
    expected = BROKEN[name]
    whole = everything or name == "attention/Mean"
    left_out = () if whole else tuple(check for check in LONG if check != expected)
    found = failed(subject_of(name, plugins), leave_out=("compile", *left_out))
    assert list(found) == ([expected] if expected else []), found


SLOW = (
    "executor/InTurn",
    "executor/Loses",
    "executor/GivesUp",
    "executor/Abandons",
)  # they start processes


@pytest.mark.parametrize("name", some_slow(OTHERS, SLOW))
def test_one_fault_beside_the_model_is_found_by_its_check_alone(
    name: str, plugins: Plugins
) -> None:
    """The same of optimizers, schedules, data, tokenizers, tasks, executors and trackers."""
    found = failed(subject_of(name, plugins))
    expected = OTHERS[name]
    assert list(found) == ([expected] if expected else []), found


@everything
def test_a_graph_break_is_found_with_its_place(everything: bool, plugins: Plugins) -> None:
    """The compile check alone fails, and names file and line."""
    found = failed(subject_of("ffn/BreaksGraph", plugins), leave_out=() if everything else REFEREED)
    assert list(found) == ["compile"]
    assert "broken.py:" in found["compile"]


def test_findings_say_where(plugins: Plugins) -> None:
    """Positions, the size of a leak, and dead parameters by name are in the text."""
    leak = failed(subject_of("attention/LeaksInTraining", plugins), ["future"])["future"]
    assert "in training" in leak
    assert "change the output at" in leak
    dead = failed(subject_of("ffn/Dead", plugins), ["gradients"])["gradients"]
    assert dead.count("ffn.unused") == 2
    late = failed(subject_of("attention/ForgetsInCache", plugins), ["cache"])["cache"]
    assert "from position 1 on" in late


def test_unknown_words_are_refused(plugins: Plugins) -> None:
    """A kind without checks, a check that there is not: each in one line with the way out."""
    with pytest.raises(StrawberryError, match="no checks for attenton; there are for attention"):
        of_component("attenton", "any", plugins=plugins)
    with pytest.raises(StrawberryError, match="did you mean 'cache'"):
        list(run(subject_of("ffn/Plain", plugins), ["cahce"]))


def test_it_says_where_random_numbers_are_drawn() -> None:
    """By component and mode: a noisy router draws in training, what adds noise always."""
    noisy = drawn(of_component("ffn", "moe", {"noisy": True}))
    assert "random numbers in training: " in noisy
    assert "evaluation" not in noisy
    plugins = Plugins.load(files=[Path(cheats.__file__)])
    told = drawn(of_component("ffn", "Draws", plugins=plugins))
    assert told.startswith("; random numbers in training: stack.nodes.0.ffn (Draws), ")
    assert "random numbers in evaluation: stack.nodes.0.ffn (Draws), " in told
    assert drawn(of_component("ffn", "swiglu")) == ""
