"""Row 42: the process that drives a sweep is killed at random moments, and started again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from strawberry.ablate.record import Record
from strawberry.ablate.report import tabulate
from strawberry.contracts.execution import FINISHED
from tests.ablate.conftest import recipe_file
from tests.faults.conftest import Figure

__all__ = ["recipe_file"]

KILLS = 20
MARK = "STRAWBERRY_TEST_SWEEP"
"""A variable that everything has that a driver starts."""
OPTIONS = [
    "--set", "train.max_iters=600", "--set", "train.checkpoint_interval=20", "--seeds", "2",
    "--vary", "ffn=swiglu,geglu,none", "--executor", "{use: local, jobs: 1}", "--json",
]  # fmt: skip


def drive(recipe: Path, out: Path, mark: str) -> subprocess.Popen[str]:
    """Begin the sweep, or go on with it."""
    command = [sys.executable, "-m", "strawberry", "ablate", str(recipe), *OPTIONS]
    return subprocess.Popen(
        [*command, "--out", str(out)],
        env={**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def marked(mark: str) -> list[int]:
    """The processes that a driver with this mark has started, and that are still there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # another user's, or gone meanwhile
            continue
    return found


def orphans(mark: str, seconds: float = 60) -> int:
    """How many outlive their driver by more than it takes to save."""
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(left)


def results(out: Path) -> dict[str, str]:
    """The text of every trial's result that counts as finished, by folder."""
    texts = {path.parent.name: path.read_text() for path in out.glob("trials/*/result.json")}
    return {name: text for name, text in texts.items() if f'"{FINISHED}"' in text}


def table(out: Path) -> Any:
    """The final table without what depends on the clock or on memory."""
    made = tabulate(Record.read(out))
    rows = [
        (row.name, row.values, row.summary, row.comparison, row.speedup, row.failed, row.planned)
        for row in made.rows
    ]
    return replace(made, rows=(), seconds=0.0), rows


class Torment:
    """Sweeps whose driver is killed until that has happened `kills` times."""

    def __init__(self, recipe: Path, chance: random.Random, length: float) -> None:
        self.recipe = recipe
        self.chance = chance
        self.length = length
        self.kills = self.orphans = self.doubled = 0

    def sweep(self, out: Path) -> float:
        """Seconds of one sweep to its end, killed on the way as long as there are kills left."""
        done: dict[str, str] = {}
        seconds = 0.0
        while True:
            mark, began = uuid.uuid4().hex, time.monotonic()
            process = drive(self.recipe, out, mark)
            try:
                wait = self.chance.uniform(0, 1.5 * self.length) if self.kills < KILLS else None
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                process.kill()
                _, errors = process.communicate()
                self.kills += 1
            seconds += time.monotonic() - began
            self.orphans += orphans(mark)
            now = results(out)
            # What was finished stays as it is, to the second that is written in it.
            self.doubled += sum(now.get(name) != text for name, text in done.items())
            done = now
            if process.returncode == 0:
                return seconds
            assert process.returncode == -9, errors


@pytest.mark.slow
@pytest.mark.faults(42)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for orphans in /proc")
def test_twenty_kills_of_a_driver(recipe_file: Path, tmp_path: Path, figure: Figure) -> None:
    """Each trial is done once, the table is that of an undisturbed sweep, and nobody is left."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 (to do it again)
    began = time.monotonic()
    whole = drive(recipe_file, tmp_path / "whole", "whole")
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors
    torment = Torment(recipe_file, random.Random(seed), time.monotonic() - began)
    expected, own = table(tmp_path / "whole"), tabulate(Record.read(tmp_path / "whole")).seconds
    same, ratios, walls = [], [], []
    while torment.kills < KILLS:
        out = tmp_path / f"sweep-{len(same)}"
        walls.append(torment.sweep(out) / torment.length)
        record = Record.read(out)
        assert len({trial.key for trial in record.trials}) == len(record.trials) == 6
        assert len(results(out)) == len(list((out / "trials").iterdir())) == 6
        same.append(table(out) == expected)
        ratios.append(tabulate(record).seconds / own)
    assert all(same)
    figure(
        torment.kills, KILLS, f"kills over {len(same)} sweeps, the same tables",
        duplicates=torment.doubled, orphans=torment.orphans,
        **{
            "trials took": f"x{max(ratios):.2f} at most",
            "sweeps took": f"x{mean(walls):.2f}",
        },
    )  # fmt: skip
    assert torment.doubled == torment.orphans == 0
