"""An offline run holds what the run's own log holds, through a failure and its resumption."""

import json
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import strawberry
from strawberry.contracts import Tracker, TrackerSite
from strawberry.errors import PluginError, RecipeError, StrawberryError
from strawberry.recipe import Recipe, patch
from strawberry.training import train

pytest.importorskip("wandb")

from strawberry_wandb.tracker import WandB

RECIPE = Path(__file__).parents[1] / "recipes" / "wandb.yaml"
BLOCK, HEADER = 32768, 7
"""A .wandb file is a LevelDB log: blocks of so many bytes, a header before each fragment."""


class Fails(Tracker):
    """Ends the run at step 5."""

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Raises there."""
        if step == 5:
            raise RuntimeError("on purpose")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Eight steps, each logged; an evaluation every second, a checkpoint every third."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
    small = ["model.vocab_size=257", "model.block_size=16", "tokenizer=bytes", "train.max_iters=8",
             "train.log_interval=1", "train.eval_interval=2", "train.eval_iters=1",
             "train.checkpoint_interval=3", "train.warmup_iters=2",
             f"data={{use: text, path: {tmp_path / 'text.txt'}}}"]  # fmt: skip
    return strawberry.load_recipe(RECIPE, small)


def records(path: Path) -> list[Any]:
    """The records of a .wandb file, which another process may be about to end."""
    found: list[Any] = []
    for _ in range(50):
        found = list(_read(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            break
        time.sleep(0.1)
    return found


def _read(path: Path) -> Iterator[Any]:
    """The records of a .wandb file as it is."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # no header fits in the rest of the block
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a whole record, or the last fragment of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def told(run: Path) -> tuple[list[dict[tuple[str, int], float]], list[dict[str, Any]]]:
    """Of each W&B file of a run: all values by name and step; and its id, config and summary."""
    values, facts = [], []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        found: dict[tuple[str, int], float] = {}
        fact: dict[str, Any] = {}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = {
                    "".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
                step = row["_step"]
                found |= {(k, step): v for k, v in row.items() if not k.startswith("_")}
            elif kind == "run":
                fact |= {"id": record.run.run_id, "name": record.run.display_name}
                fact |= {"config": {u.key: json.loads(u.value_json)
                                    for u in record.run.config.update}}  # fmt: skip
            elif kind == "summary":
                fact |= {"".join(u.nested_key) or u.key: json.loads(u.value_json)
                         for u in record.summary.update}  # fmt: skip
            elif kind == "exit":
                fact["exit"] = record.exit.exit_code
        values.append(found)
        facts.append(fact)
    return values, facts


def logged(run: Path) -> dict[tuple[str, int], float]:
    """What metrics.jsonl holds, in the same form."""
    values = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        group = "train" if "lr" in row else "eval"
        values |= {(f"{group}/{k}", step): v for k, v in row.items()}
    return values


def test_the_offline_run_is_the_log(recipe: Recipe, tmp_path: Path) -> None:
    """Every value at its step; the recipe and the environment as configuration; how it ended."""
    train(recipe, tmp_path / "run")
    (values,), (facts,) = told(tmp_path / "run")
    assert values == logged(tmp_path / "run")
    assert len(values) > 8
    assert facts["name"] == "wandb"
    assert facts["config"]["model"]["n_embd"] == recipe.model.n_embd
    assert facts["config"]["environment"]["torch"]
    assert (facts["status"], facts["exit"]) == ("finished", 0)


def test_a_resumed_run_has_the_same_id(recipe: Recipe, tmp_path: Path) -> None:
    """A run that fails at step 5 goes on from step 3; W&B gets one run, and the same numbers."""
    with pytest.raises(PluginError, match="on purpose"):
        train(recipe, tmp_path / "run", trackers=[Fails()])
    train(recipe, tmp_path / "run", resume=True)
    (first, second), facts = told(tmp_path / "run")
    assert facts[0]["id"] == facts[1]["id"]
    assert [f["status"] for f in facts] == ["failed", "finished"]
    assert [f["exit"] for f in facts] == [1, 0]
    assert min(step for _, step in second) == 4
    both = first.keys() & second.keys()
    timed = {"train/tokens_per_second", "train/seconds"}
    assert {k for k in both if k[0] not in timed}
    assert all(first[k] == second[k] for k in both if k[0] not in timed)
    assert {**first, **second}.keys() == logged(tmp_path / "run").keys()


def test_fields_reach_wandb(recipe: Recipe, tmp_path: Path) -> None:
    """Name, group and tags."""
    tracker = "trackers=[{use: wandb, name: n, group: g, tags: [one, two], project: p}]"
    train(patch(recipe, [tracker]), tmp_path / "run")
    (path,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    (run,) = (r.run for r in records(path) if r.WhichOneof("record_type") == "run")
    assert (run.display_name, run.run_group, run.project) == ("n", "g", "p")
    assert list(run.tags) == ["one", "two"]


@pytest.mark.component("tracker/wandb", mode="offline")
def test_conforms(component_check: Callable[[], None]) -> None:
    """It goes through whole, failed and resumed runs, and changes nothing."""
    component_check()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(StrawberryError, match="pip install wandb"):
        WandB(TrackerSite())


def test_a_wrong_mode_is_refused_in_its_place(recipe: Recipe) -> None:
    """Before anything runs."""
    with pytest.raises(RecipeError, match=r"trackers\[0\].mode"):
        patch(recipe, ["trackers=[{use: wandb, mode: sometimes}]"])
