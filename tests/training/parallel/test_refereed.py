"""Runs on two ranks are refereed as those of one process are, and keep the same rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.referee import cheats
from tests.training.parallel.ranks import job, run

CHEATS = {"none": "", "attention": "Chunk16", "ffn": "RowsInEvaluation"}
WORDS = {
    "attention": "(Chunk16): tokens from",
    "ffn": "(RowsInEvaluation): other sequences of the batch",
}


def jobs(folder: Path, parallel: str) -> list[dict[str, Any]]:
    """A run of each cheat, and one without."""
    every = []
    for part, name in CHEATS.items():
        one = job("llama", folder / f"{parallel}-{part}", train__parallel=parallel,
                  train__max_iters=3, train__batch_size=6)  # fmt: skip
        one["sets"] += ["model.positional=none"]
        one["sets"] += [f"model.stack.*.{part}=cheats/{name}"] if name else []
        every.append({**one, "plugins": [str(Path(cheats.__file__))]})
    return every


def breaches(folder: Path) -> list[str]:
    """What the referee wrote of a run."""
    told: list[str] = json.loads((folder / "referee.json").read_text())["breaches"]
    return told


@pytest.mark.slow
def test_two_ranks_find_what_one_process_finds(tmp_path: Path) -> None:
    """By copies and in shards each cheat is found with its place, and the rows are the same."""
    run(1, jobs(tmp_path / "one", "ddp")[:1], tmp_path / "one.json")
    every = [one for parallel in ("ddp", "fsdp") for one in jobs(tmp_path, parallel)]
    run(2, every, tmp_path / "two.json")
    with np.load(tmp_path / "one/ddp-none/rows/000000003.npz") as alone:
        expected = {name: alone[name] for name in alone.files}
    for parallel in ("ddp", "fsdp"):
        assert breaches(tmp_path / f"{parallel}-none") == []
        with np.load(tmp_path / f"{parallel}-none/rows/000000003.npz") as rows:
            assert np.allclose(rows["nats"], expected["nats"], rtol=1e-4)
            assert np.array_equal(rows["targets"], expected["targets"])
            assert np.array_equal(rows["group"], expected["group"])
        for part, words in WORDS.items():
            assert any(words in line for line in breaches(tmp_path / f"{parallel}-{part}"))
