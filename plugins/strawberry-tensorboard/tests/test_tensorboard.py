"""The event files hold what the run's own log holds, through a failure and its resumption."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import strawberry
from strawberry.contracts import Tracker, TrackerSite
from strawberry.errors import PluginError, RecipeError, StrawberryError
from strawberry.recipe import Recipe, patch

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")

from strawberry_tensorboard.tracker import TensorBoard  # noqa: E402

RECIPE = Path(__file__).parents[1] / "recipes" / "tensorboard.yaml"


class Fails(Tracker):
    """Ends the run at step 5."""

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Raises there."""
        if step == 5:
            raise RuntimeError("on purpose")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Eight steps, each logged; an evaluation every second, a checkpoint every third."""
    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
    small = ["model.vocab_size=257", "model.block_size=16", "tokenizer=bytes", "train.max_iters=8",
             "train.log_interval=1", "train.eval_interval=2", "train.eval_iters=1",
             "train.checkpoint_interval=3", "train.warmup_iters=2",
             f"data={{use: text, path: {tmp_path / 'text.txt'}}}"]  # fmt: skip
    return strawberry.load_recipe(RECIPE, small)


def events(folder: Path) -> tuple[dict[tuple[str, int], list[float]], dict[str, str]]:
    """All scalars by tag and step, and the last text of each tag, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    scalars: dict[tuple[str, int], list[float]] = {}
    for tag in found.Tags()["scalars"]:
        for event in found.Scalars(tag):
            scalars.setdefault((tag, event.step), []).append(event.value)
    texts = {
        tag: found.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
        for tag in found.Tags()["tensors"]
    }
    return scalars, texts


def logged(run: Path) -> dict[tuple[str, int], list[float]]:
    """What metrics.jsonl holds, in the same form."""
    values = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        group = "train" if "lr" in row else "eval"
        values |= {(f"{group}/{k}", step): [float(np.float32(v))] for k, v in row.items()}
    return values


def test_the_events_are_the_log(recipe: Recipe, tmp_path: Path) -> None:
    """Every value, once; the recipe and the end of the run as texts."""
    strawberry.train(recipe, tmp_path / "run")
    scalars, texts = events(tmp_path / "run" / "tensorboard")
    assert scalars == logged(tmp_path / "run")
    assert len(scalars) > 8
    assert "trackers" in texts["recipe/text_summary"]
    assert texts["status/text_summary"] == "finished"


def test_what_is_done_twice_shows_once(recipe: Recipe, tmp_path: Path) -> None:
    """A run that fails at step 5 goes on from step 3; the files of both hold each step once."""
    with pytest.raises(PluginError, match="on purpose"):
        strawberry.train(recipe, tmp_path / "run", trackers=[Fails()])
    first, texts = events(tmp_path / "run" / "tensorboard")
    assert max(step for _, step in first) >= 4
    assert texts["status/text_summary"] == "failed"
    strawberry.train(recipe, tmp_path / "run", resume=True)
    scalars, texts = events(tmp_path / "run" / "tensorboard")
    assert scalars == logged(tmp_path / "run")
    assert texts["status/text_summary"] == "finished"


@pytest.mark.component("tracker/tensorboard")
def test_conforms(component_check) -> None:
    """It goes through whole, failed and resumed runs, and changes nothing."""
    component_check()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(StrawberryError, match="pip install tensorboard"):
        TensorBoard(TrackerSite())


def test_it_stays_in_the_run_folder(recipe: Recipe, tmp_path: Path) -> None:
    """A folder elsewhere is refused at its place in the recipe, and no run is begun."""
    elsewhere = patch(recipe, ["trackers=[{use: tensorboard, folder: ../elsewhere}]"])
    with pytest.raises(RecipeError, match=r"trackers\[0\].folder: is in the run's folder"):
        strawberry.train(elsewhere, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()
