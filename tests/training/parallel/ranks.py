"""Running a command in several ranks on this machine, and reading what came of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.training.parallel.worker import work

TINY = {
    "model.n_embd": 32,
    "model.block_size": 32,
    "model.vocab_size": 512,
    "data.max_bytes": 200_000,
    "train.max_iters": 6,
    "train.batch_size": 4,
    "train.eval_interval": 3,
    "train.eval_iters": 2,
    "train.log_interval": 1,
    "train.checkpoint_interval": 0,
    "train.warmup_iters": 2,
    "train.device": "cpu",
    "train.threads": 1,
    "train.keep_memory": "false",
}
"""What makes a recipe of recipes/ small enough to run in seconds."""

TEXT = "data.max_bytes"
"""What of it only recipes that read text have a field for."""

RECIPES = Path(__file__).parents[3] / "recipes"
TIMEOUT = 600


def sets(*, text: bool = True, **changes: Any) -> list[str]:
    """The overrides of TINY, and these, whose names have `__` for a dot."""
    tiny = {name: value for name, value in TINY.items() if text or name != TEXT}
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{name}={value}" for name, value in {**tiny, **given}.items()]


def job(
    name: str,
    folder: Path,
    *,
    resume: bool = False,
    fork: Path | None = None,
    poison: int = 0,
    parts: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    """A job for `worker.py`: a recipe of recipes/, made tiny.

    Step `poison` is not finite; one process takes each batch in `parts`, as ranks would.
    """
    recipe = RECIPES / f"{name}.yaml"
    changes["text"] = "task:" not in recipe.read_text()
    return {
        "recipe": str(recipe), "sets": sets(**changes), "folder": str(folder), "resume": resume,
        "fork": None if fork is None else str(fork), "poison": poison, "parts": parts,
    }  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What a launcher tells each rank."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    shared = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **shared, **{name: str(value) for name, value in own.items()}}


def start(size: int, command: list[str]) -> list[subprocess.Popen[str]]:
    """The processes of `python COMMAND`, one for each rank."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=RECIPES.parent,
            env=environment(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; none outlives this."""
    try:
        outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(processes, outputs, strict=True)]


def run(size: int, jobs: list[dict[str, Any]], file: Path) -> list[list[dict[str, Any]]]:
    """Train all jobs with so many ranks, or in this process; how each ended, by rank."""
    if size == 1:
        return [work(jobs)]
    file.write_text(json.dumps([{**each, "port": free_port()} for each in jobs]))
    ended = finish(start(size, ["-m", "tests.training.parallel.worker", str(file)]))
    for code, _, errors in ended:
        assert code == 0, errors
    return [json.loads(output.splitlines()[-1]) for _, output, _ in ended]


def rows(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run, without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in found]


def difference(one: Path, other: Path, of: str = "loss") -> float:
    """The largest difference of what both runs logged: `loss` takes validation losses in too."""
    pairs = list(zip(rows(one), rows(other), strict=True))
    assert all(a.keys() == b.keys() and a["step"] == b["step"] for a, b in pairs)
    return max(abs(a[k] - b[k]) for a, b in pairs for k in a if of in k)
