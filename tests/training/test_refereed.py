"""What the referee finds of a run is told, written down, and kept."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import strawberry
from strawberry.check import of_component
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.recipe.spec import Recipe
from strawberry.referee.judged import judge
from strawberry.referee.losses import loss_breach
from strawberry.runs.folder import RunFolder
from strawberry.training import RunResult
from tests.model import keepers
from tests.referee import cheats

CHEATS = Path(cheats.__file__)
LLAMA = Path(__file__).parents[2] / "recipes/llama.yaml"
BERRIES = ("strawberry", "blueberry", "raspberry")
Train = Callable[..., tuple[RunResult, list[str]]]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Trains `llama.yaml`, small, with other parts; gives what it said of validation too."""
    rng = random.Random(3)
    words = [f"{rng.choice(BERRIES)} {rng.randrange(10**6)}" for _ in range(1500)]
    (tmp_path / "text.txt").write_text(" ".join(words))
    plugins = Plugins.load(files=[CHEATS, Path(keepers.__file__)])

    def recipe(steps: int, *sets: str) -> Recipe:
        return load_recipe(
            LLAMA,
            [
                "model.n_embd=16",
                "model.block_size=64",
                "model.vocab_size=257",
                f"data={{use: text, path: {tmp_path / 'text.txt'}}}",
                "tokenizer=bytes",
                f"train.max_iters={steps}",
                "train.batch_size=4",
                "train.warmup_iters=1",
                "train.lr_decay_iters=8",
                "model.positional=none",
                "train.eval_iters=1",
                *sets,
            ],
            plugins=plugins,
        )

    def run(*sets: str, steps: int = 3, resume: bool = False) -> tuple[RunResult, list[str]]:
        said: list[str] = []
        done = strawberry.train(
            recipe(steps, *sets), tmp_path / "run", resume=resume, warn=said.append
        )
        return done, [line for line in said if "validation" in line]

    return run


def test_an_honest_run_has_no_breach(train: Train) -> None:
    """Nothing is said, and the run's folder says that it was looked at."""
    done, said = train()
    assert done.breaches == ()
    assert said == []
    assert '"step": 3' in RunFolder(done.folder).referee_file.read_text()


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ("model.stack.*.attention=cheats/Chunk16", "(Chunk16): tokens from"),
        ("model.stack.*.ffn=cheats/RowsInEvaluation", "(RowsInEvaluation): other sequences"),
        ("model.stack.*.ffn=cheats/TrainsInEvaluation", "(TrainsInEvaluation): an earlier batch"),
    ],
)
def test_a_cheat_is_told_and_stays_known(train: Train, sets: str, words: str) -> None:
    """It is warned of with its place, and a resumed run still has it."""
    done, said = train(sets)
    assert any(words in line for line in said)
    assert any(words in line for line in done.breaches)
    resumed, _ = train(sets, steps=4, resume=True)
    assert set(done.breaches) <= set(resumed.breaches)


def test_a_long_run_is_looked_at_early(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first evaluation tells it, long before the last one."""
    monkeypatch.setattr("strawberry.training.measuring.LONG", 3)
    _, said = train("model.stack.*.attention=cheats/SequenceMean", "train.eval_interval=1")
    assert len(said) >= 1
    assert said[0].startswith("the validation loss can't be trusted")


def test_text_in_both_splits_is_told(train: Train, tmp_path: Path) -> None:
    """A validation split that is a copy of training text is warned of, and no breach."""
    (tmp_path / "twice.txt").write_text("a strawberry is red, a blueberry is blue. " * 400)
    done, said = train(f"data={{use: text, path: {tmp_path / 'twice.txt'}}}")
    assert any(
        "100% of the validation text is in the training text too, up to whitespace, case and names"
        in line
        for line in said
    )
    assert done.breaches == ()


def test_recomputing_that_makes_another_model_is_refused(train: Train) -> None:
    """A value left on a class for the next block: before the first step, with the line."""
    with pytest.raises(RecipeError, match=r"changes the model: .*keepers.py:\d+ \(left\)"):
        train("model.stack.*.attention=keepers/OnTheClass", "train.checkpoint_activations=true")
    train("model.stack.*.attention=keepers/InMemo", "train.checkpoint_activations=true")


def test_draws_in_evaluation_are_told(train: Train) -> None:
    """A component that draws in evaluation is named, and is no breach: draws are fixed."""
    done, _ = train("model.stack.*.ffn=cheats/Draws")
    assert done.breaches == ()
    assert "(Draws)" in RunFolder(done.folder).judgement()["draws"][0]


def test_a_loss_is_that_of_the_distribution() -> None:
    """A sum that leaves out a part of the normaliser is found; the right one isn't."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 11, generator=generator)
    targets = torch.randint(11, (2, 5), generator=generator)
    targets[0, 0] = -1
    counted = targets >= 0
    right = torch.nn.functional.cross_entropy(logits[counted], targets[counted], reduction="sum")
    assert loss_breach(logits, targets, float(right), torch.float32) is None
    improper = float(right) - 0.01 * int(counted.sum())  # probabilities that sum to 1.01
    breach = loss_breach(logits, targets, improper, torch.float32)
    assert breach is not None
    assert "but the logits give" in str(breach)


def test_a_rare_sight_of_the_next_token_is_found() -> None:
    """A run's rows in short pieces show what one token in 29 sees, with few passes."""
    plugins = Plugins.load(files=[CHEATS])
    model, _ = of_component("attention", "SometimesOffByOne", plugins=plugins).long()
    model.eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(61, (8, 256), generator=generator)
    breaches = [
        judge(model, torch.no_grad()(model.hidden), x, seed=n, dtype=torch.float32, pieces=True)
        for n in range(4)
    ]
    assert [[breach.kind for breach in each] for each in breaches] == [["future"]] * 4
