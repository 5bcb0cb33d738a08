"""The referee finds the cheats of kind_cheats.py: in a component alone, and in a run."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import strawberry
from strawberry.check import of_component, run
from strawberry.errors import PluginError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.referee import audit
from strawberry.runs.folder import RunFolder
from tests.referee import kind_cheats
from tests.support import some_slow

LLAMA = Path(__file__).parents[2] / "recipes/llama.yaml"
CHEATS = {
    "residual/JoinsAhead": ("future", "AheadJoin"),
    "residual/ReadsAhead": ("future", "AheadReader"),
    "residual/EndsAhead": ("future", "EndsAhead"),
    "residual/BeginsTogether": ("batch", "BeginsTogether"),
    "residual/Remembers": ("history", "Remembers"),
    "block/Reorders": ("future", "Reorders"),
    "block/SecondLook": ("future", "SecondLook"),
    "block/Sways": ("batch", "Sways"),
    "objective/Skips": ("loss", "Skips"),
    "objective/Weighs": ("loss", "Weighs"),
    "objective/ReadsAnswers": ("loss", "ReadsAnswers"),
    "objective/Knows": ("loss", "Knows"),
    "objective/ReportsLess": ("loss", "ReportsLess"),
    "attention/FromGradients": ("history", "FromGradients"),
    "attention/Later": ("history", "Later"),
    "attention/Alone": ("batch", "Alone"),
    "attention/OneHead": ("future", "OneHead"),
    "attention/CompiledTraining": ("future", "CompiledTraining"),
    "attention/OtherCache": ("batch", "OtherCache"),
    "attention/KeepsCache": ("history", "KeepsCache"),
    "attention/Peeks": ("future", "Peeks"),
    "attention/Gate": ("future", "Gate"),
    "positional/Turns": ("future", "Turns"),
    "weights/Whitens": ("future", "Centred"),
    "ffn/TellsLoss": ("loss", "TellsLoss"),
}
"""The kind of dependence by which each gives itself away, and its place."""
RUNS = {
    "model.residual=JoinsAhead": "AheadJoin",
    "model.block=Reorders": "Reorders",
    "objective=Skips": "objective (Skips): the loss is",
    "model.stack.*.ffn=Memorises": "ffn (Memorises): row 1 of validation has a loss",
    "model.stack.*.ffn=LearnsInEvaluation": "ffn.shift is changed in an evaluation",
    "model.stack.*.ffn=TellsLoss": "its term 'loss' has the name",
    "model.stack.*.ffn=FromFile": "the validation split is read by",
    "model.stack.*.ffn=FromMemory": "the validation split is read by",
    "measures=[Trains]": "in an evaluation, by measures (kind_cheats/Trains)",
    "averaging=[Fits]": "the validation split is read by",
    "averaging=[Opens] model.stack.*.attention=Gate": "with the average Opens",
    "curriculum=[EndsEasy] model.stack.*.attention=Peeks": "attention (Peeks)",
    "trackers=[Coaches]": "tracker Coaches: step_done changes head.weight",
}
"""What is said of a run with these settings."""
SLOW = {*list(CHEATS)[5:], "residual/BeginsTogether", *list(RUNS)[2:]}
Train = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load(files=[Path(kind_cheats.__file__)])


@pytest.fixture(autouse=True)
def _what_cheats_keep() -> Iterator[None]:
    """Forget what a cheat has memorised."""
    yield
    kind_cheats.MEMORY.clear()


@pytest.mark.parametrize("name", some_slow(CHEATS, SLOW))
def test_a_cheat_is_found_with_its_kind_and_place(name: str, plugins: Plugins) -> None:
    """The first breach is of the cheat's kind, and names the cheat."""
    kind, _, short = name.partition("/")
    model, lengths = of_component(kind, short, plugins=plugins).long()
    every = audit(model, lengths, compiled=short == "CompiledTraining")
    breach = next(m.breach for m in every if m.breach is not None)
    expected, place = CHEATS[name]
    assert breach.kind == expected
    assert f"({place})" in breach.place


@pytest.mark.parametrize("name", ["MeasuresLoss", "Trains"])
def test_a_measure_that_cheats_is_found(name: str, plugins: Plugins) -> None:
    """One by the name of the loss, and one that changes weights."""
    results = list(run(of_component("measure", name, plugins=plugins)))
    assert any(result.verdict == "failed" for result in results)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugins: Plugins) -> Train:
    """Trains a small `llama.yaml` for four steps with two evaluations; what the referee says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    rng = random.Random(3)
    Path("text.txt").write_text(" ".join(f"Berry {rng.randrange(10**6)}" for _ in range(1500)))

    def trained(sets: str) -> list[str]:
        small = [
            "model.n_embd=16", "model.block_size=32", "model.vocab_size=258", "tokenizer=bytes",
            "model.positional=none", "data={use: text, path: text.txt}", "train.batch_size=4",
            "train.max_iters=4", "train.eval_iters=1", "train.eval_interval=2",
            "train.log_interval=2", "train.warmup_iters=1", "train.lr_decay_iters=4",
        ]  # fmt: skip
        recipe = load_recipe(LLAMA, [*small, *sets.split(" ")], plugins=plugins)
        return RunFolder(strawberry.train(recipe, "run").folder).breaches()

    return trained


@pytest.mark.parametrize("sets", some_slow(RUNS, SLOW))
def test_a_cheat_is_found_in_its_run(sets: str, train: Train) -> None:
    """Whatever the kind of component, the run's own record says what is wrong."""
    breaches = train(sets)
    assert any(RUNS[sets] in line for line in breaches), breaches


@pytest.mark.slow
def test_a_measure_has_no_name_of_the_evaluations_own(train: Train) -> None:
    """It can't take the place of the validation loss."""
    with pytest.raises(PluginError, match="MeasuresLoss: 'loss' is the name"):
        train("measures=[MeasuresLoss]")
