"""The referee finds what is wrong around a model: the cheats of run_cheats.py."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

import strawberry
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.runs.folder import RunFolder
from strawberry.training import measuring
from tests.referee import run_cheats

LLAMA = Path(__file__).parents[2] / "recipes/llama.yaml"
TEXT = "data={use: Plain, path: text.txt}"
TOKENIZERS = {
    "CountsDouble": "bytes are counted where the targets stand for",
    "DecodesDouble": "stand for 2 times the bytes of its text",
    "DropsDigits": "give back",
    "DigitsToEnds": "give back",
    "DigitsToOne": "stand for 1 times the bytes of its text, and give back",
    "Fills": "of the tokens stand for no text",
    "OtherAlone": "stand for 2 times the bytes of its text",
}
DATA = {
    "EasyWindow": "is evaluated 4 times, and stands in it 1 times",
    "TrainingAsValidation": "is no window of its ids",
    "ValidationAsTraining": "of the last training step is validation text",
    "LeavesOut": "of the targets are left out",
    "CopiesInputs": "a target is not the next token",
    "CountsMore": "bytes are counted where the targets stand for",
    "OtherIds": "is no window of its ids",
    "OthersNextTime": "are others when they are asked for again",
}
OTHERS = {
    "optimizer=Spies": "the validation split is read by",
    "schedule=Replaces": "strawberry.training.measuring.validate is replaced by",
    "trackers=[Rewrites]": "has val_loss 0.5 where",
    "trackers=[Lowers]": "the loss is",
    "model.stack.*.ffn=Reads": "the validation split is read by",
    "model.stack.*.ffn=LooksAway": "nats in evaluation and of",
    "model.stack.*.ffn=AfterTraining": "nats in evaluation and of",
}
Train = Callable[..., RunFolder]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains a small `llama.yaml` for two steps, with other parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "validate", measuring.validate)
    rng = random.Random(3)
    words = [f"Berry {rng.randrange(10**6)}" for _ in range(1500)]
    Path("text.txt").write_text(" ".join(words))
    plugins = Plugins.load(files=[Path(run_cheats.__file__)])

    def run(*sets: str) -> RunFolder:
        recipe = load_recipe(
            LLAMA,
            [
                "model.n_embd=16", "model.block_size=32", "model.vocab_size=258",
                "model.positional=none", "tokenizer={use: Opens}", TEXT, "train.batch_size=4",
                "train.max_iters=2", "train.eval_iters=1", "train.warmup_iters=1",
                "train.lr_decay_iters=2", *sets,
            ],
            plugins=plugins,
        )  # fmt: skip
        return RunFolder(strawberry.train(recipe, "run").folder)

    return run


def test_what_does_not_cheat_is_not_accused(train: Train) -> None:
    """The tokenizer and the data that all of these begin from are believed."""
    assert train().judgement()["breaches"] == []


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_miscounts_is_found(name: str, train: Train) -> None:
    """What it says of its ids is compared with the text, and it is named."""
    breaches = train(f"tokenizer={{use: Opens, name: {name}}}").breaches()
    assert any(TOKENIZERS[name] in line for line in breaches), breaches
    assert any(
        line.startswith(("tokenizer run_cheats/Opens", "data run_cheats/Plain"))
        for line in breaches
    )


@pytest.mark.parametrize("name", DATA)
def test_data_that_are_patched_are_found(name: str, train: Train) -> None:
    """Rows are compared with the split's ids, and their losses with themselves."""
    breaches = train(f"data={{use: {name}, path: text.txt}}").breaches()
    assert any(DATA[name] in line for line in breaches), breaches


@pytest.mark.parametrize("sets", OTHERS)
def test_what_is_near_an_evaluation_is_found(sets: str, train: Train) -> None:
    """Readers of the validation split, replaced functions, and what behaves while it is watched."""
    breaches = train(sets).breaches()
    assert any(OTHERS[sets] in line for line in breaches), breaches


def test_what_is_declared_is_told_as_such(train: Train) -> None:
    """A tokenizer that changes the text, and data that leave targets out, can say so."""
    sets = (
        "tokenizer={use: Opens, name: NotToTheLetter}",
        "data={use: LeavesOutOpenly, path: text.txt}",
    )
    judgement = train(*sets).judgement()
    assert judgement["breaches"] == []
    told = " ".join(judgement["declared"])
    assert "tokenizer run_cheats/Opens: the ids of validation stand for 1 times the bytes" in told
    assert "of the targets are left out" in told


def test_a_tracker_changes_no_metrics(train: Train) -> None:
    """What a tracker writes into its copy is nobody else's."""
    run = train("trackers=[Improves]")
    assert run.breaches() == []
    assert run.metrics()[-1]["val_loss"] > 1
