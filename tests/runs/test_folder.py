import json
from pathlib import Path

import pytest

from strawberry.errors import StrawberryError
from strawberry.generation import load_run
from strawberry.recipe import load_recipe
from strawberry.runs.folder import RunFolder, new_run_folder
from strawberry.training import train
from tests.training.conftest import RecipeMaker


def test_a_run_folder_holds_what_it_promises(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The recipe loads to an equal one; run.json says what, where and on which data."""
    recipe = make_recipe(train={"max_iters": 2})
    train(recipe, tmp_path / "run")
    assert load_recipe(tmp_path / "run") == recipe
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["torch"]
    assert info["seed"] == 7
    assert info["plugins"]["strawberry"]
    assert len(info["data"]["fingerprint"]) >= 32
    assert {"device", "threads", "python", "command"} <= info.keys()
    assert (tmp_path / "run" / "tokenizer.json").is_file()
    assert not (tmp_path / "run" / ".holder").exists()


def test_default_folders_are_numbered(make_recipe: RecipeMaker) -> None:
    """`runs/NAME`, then `runs/NAME-2`, in the current folder."""
    recipe = make_recipe(train={"max_iters": 1})
    assert train(recipe).folder == Path("runs/tiny")
    assert train(recipe).folder == Path("runs/tiny-2")
    assert new_run_folder("tiny") == Path("runs/tiny-3")


def test_rows_after_a_step_are_forgotten(tmp_path: Path) -> None:
    """Rows past the checkpoint go, and so does a last line that was cut."""
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.log({"step": step, "loss": step / 3})
    with run.metrics_file.open("a") as file:
        file.write('{"step": 4, "lo')
    run.forget_after(2)
    assert [row["step"] for row in run.metrics()] == [1, 2]
    assert run.metrics_file.read_text().count("\n") == 2


def test_a_tokenizer_and_a_model_come_back(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """What is loaded is in eval mode, at the last step, with its tokenizer."""
    train(make_recipe(), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert (loaded.step, loaded.model.training, loaded.warnings) == (8, False, [])
    assert loaded.tokenizer().decode(loaded.tokenizer().encode("caf\u00e9")) == "caf\u00e9"


def test_a_longer_run_is_the_same_run_only_if_its_schedule_is(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """More steps need the old length of the schedule spelt out: else the rates would change."""
    train(make_recipe(train={"max_iters": 4}), tmp_path / "run")
    with pytest.raises(
        StrawberryError,
        match=r"train\.max_iters: 4 -> 6, which changes .* --set train\.lr_decay_iters=4",
    ):
        train(make_recipe(train={"max_iters": 6}), tmp_path / "run", resume=True)
    longer = make_recipe(train={"max_iters": 6, "lr_decay_iters": 4})
    assert train(longer, tmp_path / "run", resume=True).steps == 6


@pytest.mark.faults(11)
def test_resuming_on_other_hardware_is_said(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Another thread count or torch may give other bits; the user is told, not stopped."""
    train(make_recipe(train={"max_iters": 2}), tmp_path / "run")
    said: list[str] = []
    recipe = make_recipe(train={"max_iters": 2, "threads": 2})
    train(recipe, tmp_path / "run", resume=True, warn=said.append)
    assert any("threads 1 -> 2" in line for line in said)


@pytest.mark.faults(17)
def test_a_folder_that_can_not_be_written_is_one_line(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Where a file is in the way there is an error that names it, before any training."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StrawberryError, match="file"):
        train(make_recipe(), tmp_path / "file" / "run")
