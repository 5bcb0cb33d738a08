"""From a command to its first training step, and to the output of those that train nothing.

    python tools/bench/start.py [RECIPE] [--repeats 5] [--json]

Seconds of the clock from the start of the process to the line of the first step. "Cold" begins with
an empty cache folder: text is collected, a vocabulary learnt and everything encoded first. "Warm"
finds all of that. Files are in the machine's page cache in both. The floor is a Python that imports
torch and nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from turns import RECIPES, show, take_turns

ONE_STEP = (
    "--set=train.max_iters=1", "--set=train.eval_interval=0", "--set=train.checkpoint_interval=0",
)  # fmt: skip
STRAWBERRY = [sys.executable, "-m", "strawberry"]


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", nargs="?", default=str(RECIPES / "original_air.yaml"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options.recipe, options.repeats, Path(folder))
    show({"recipe": options.recipe, "rows": rows}, table, options.json)


def measure(recipe: str, repeats: int, folder: Path) -> dict[str, dict[str, float]]:
    """The seconds of everything that is compared, in turns; the cold ones have a cache each."""
    warm = folder / "cache"

    def new() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    contenders: dict[str, Callable[[], float]] = {
        "python": lambda: command([sys.executable, "-c", "pass"], warm),
        "--help": lambda: command([*STRAWBERRY, "--help"], warm),
        "import torch": lambda: command([sys.executable, "-c", "import torch"], warm),
        "build": lambda: command([*STRAWBERRY, "build", recipe], warm),
        "train, to its first step, warm": lambda: first_step(recipe, new() / "run", warm),
        "train, to its first step, cold": lambda: first_step(recipe, new() / "run", new()),
    }
    seconds = take_turns(contenders, repeats, told=True)
    return {name: {"median": median(all_), "least": min(all_)} for name, all_ in seconds.items()}


def command(words: list[str], cache: Path) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    subprocess.run(words, env=environment(cache), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def first_step(recipe: str, run: Path, cache: Path) -> float:
    """Seconds until `strawberry train` says that its first step is done."""
    start = time.perf_counter()
    words = [*STRAWBERRY, "train", recipe, "--run-dir", str(run), *ONE_STEP]
    child = subprocess.Popen(words, env=environment(cache), stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    took = next((time.perf_counter() - start for line in child.stdout if "step 1/" in line), None)
    child.stdout.read()
    if child.wait() or took is None:
        sys.exit(f"{' '.join(words)}: exit code {child.returncode}")
    return took


def environment(cache: Path) -> dict[str, str]:
    """This one, with a cache folder and a checkout that commands are taken from."""
    checkout = str(RECIPES.parent)
    paths = [checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "STRAWBERRY_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths)}


def table(result: dict[str, Any]) -> str:
    """The rows as text."""
    lines = [f"{'seconds':34}{'median':>8}{'least':>8}"]
    for name, row in result["rows"].items():
        lines.append(f"{name:34}{row['median']:8.2f}{row['least']:8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
