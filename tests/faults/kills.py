"""Runs that are killed at random moments, and what they come to: `python -m tests.faults.kills`.

Each recipe is trained once in peace. Then it is trained in processes that get a SIGKILL after a
random time, resumed each time, until it has been killed often enough; then it may end. Its log and
its weights have to be those of the first run. Processes are forked, so that none has to import
torch again. The last line is JSON: kills, those of them whose run ended identical, steps redone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from strawberry.recipe import load_recipe
from strawberry.recipe.spec import Recipe
from strawberry.runs import checkpoint
from strawberry.runs.folder import RunFolder
from strawberry.training import train
from tests.training.test_loop import rows, same_weights

ROOT = Path(__file__).parents[2]
RECIPES = ("original_air", "gpt2", "moe", "mor_token_choice", "muon")
TINY = [
    "seed=3", "data={use: stdlib, max_bytes: 400000}", "tokenizer=bpe", "model.vocab_size=512",
    "model.block_size=32", "train.batch_size=2", "train.warmup_iters=5", "train.max_iters=40",
    "train.eval_iters=1", "train.log_interval=1", "train.eval_interval=10",
    "train.checkpoint_interval=3", "train.device=cpu", "train.keep_memory=false",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipe."""

    kills: int
    identical: bool
    redone: int
    seconds: float


def forked(recipe: Recipe, folder: Path, log: Path) -> int:
    """Start or go on with a run in a process of its own; returns its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        train(recipe, folder, resume=RunFolder(folder).exists)
        code = 0
    finally:
        os._exit(code)


def last_step(folder: Path) -> int:
    """The last step in the log."""
    return max((row["step"] for row in RunFolder(folder).metrics()), default=0)


def torment(name: str, kills: int, out: Path, chance: random.Random) -> Outcome:
    """Train a recipe in peace and under fire, and compare."""
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", TINY)
    whole, folder, log = out / f"{name}-whole", out / name, out / f"{name}.log"
    began = time.monotonic()
    train(recipe, whole)
    length = time.monotonic() - began
    done = redone = 0
    while True:
        process = forked(recipe, folder, log)
        if done < kills:
            # Anywhere from before the first step on, and seldom so late that little is left.
            time.sleep(chance.uniform(0.0, 1.2 * length / kills + 0.1))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            done += 1
            saved = list(checkpoint.newest(folder / "checkpoints"))
            kept = int(saved[0].name.removeprefix("step-")) if saved else 0
            redone += max(0, last_step(folder) - kept)
            continue
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{name}: a resumed run failed:\n{log.read_text()}")
        same = rows(folder) == rows(whole) and same_weights(folder, whole)
        if same and done < kills:  # it ended before it had been killed often enough: once more
            import shutil

            shutil.rmtree(folder)
            continue
        return Outcome(done, same, redone, time.monotonic() - began)


def main() -> int:
    """Print a line for each recipe, and the sum as JSON; exit code 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES, help="names in recipes/")
    parser.add_argument("--kills", type=int, default=10, help="for each recipe")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path, default=None, help="keep the runs here")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    out = chosen.out or Path(tempfile.mkdtemp(prefix="kills-"))
    chance = random.Random(chosen.seed)
    print(f"seed {chosen.seed}, runs in {out}")
    outcomes = []
    for name in chosen.recipes:
        one = torment(name, chosen.kills, out, chance)
        outcomes.append(one)
        verdict = "identical" if one.identical else "DIFFERENT"
        print(f"{name:<20} {one.kills} kills, {one.redone} steps redone, {verdict}, "
              f"{one.seconds:.1f} s", flush=True)  # fmt: skip
    total = {
        "kills": sum(one.kills for one in outcomes),
        "identical": sum(one.kills for one in outcomes if one.identical),
        "redone": sum(one.redone for one in outcomes),
    }
    print(json.dumps(total))
    return 0 if total["kills"] == total["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
