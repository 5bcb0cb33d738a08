"""One rank of several: trains each recipe of a list, one after the other, as `train` does."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.training import Diverged, train
from strawberry.training.batches import Batches, MicroBatch
from strawberry.training.step import Step


def poison(at: int, patch: pytest.MonkeyPatch) -> None:
    """Let the loss that the last rank sees be a NaN the `at`th time; its gradient stays finite."""
    original, calls = Step.gradient, itertools.count(1)
    last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1

    def gradient(*args: Any) -> Any:
        *others, seen = args
        spoilt = next(calls) == at and last

        def see(loss: Any, share: float) -> None:
            seen(loss._replace(total=loss.total + math.nan) if spoilt else loss, share)

        return original(*others, see)

    patch.setattr(Step, "gradient", gradient)


def divide(parts: int, patch: pytest.MonkeyPatch) -> None:
    """Let this process take each batch in the parts that so many ranks would take, one by one."""
    original = Batches.train

    def train_rows(batches: Batches, step: int) -> list[MicroBatch]:
        ((x, y),) = original(batches, step)
        return list(zip(x.chunk(parts), y.chunk(parts), strict=True))

    patch.setattr(Batches, "train", train_rows)


def work(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train each job of `ranks.job`, which may have `port` and `plugins` too; how each ended."""
    ended: list[dict[str, Any]] = []
    for job in jobs:
        if "RANK" in os.environ:  # each run meets at a place of its own
            os.environ["MASTER_PORT"] = str(job["port"])
        files = [Path(file) for file in job.get("plugins", ())]
        plugins = Plugins.load(files=files) if files else None
        recipe = load_recipe(Path(job["recipe"]), job["sets"], plugins=plugins)
        with pytest.MonkeyPatch.context() as patch:
            if job.get("poison"):
                poison(job["poison"], patch)
            if job.get("parts"):
                divide(job["parts"], patch)
            try:
                how = {"resume": job.get("resume", False), "fork_of": job.get("fork")}
                ended.append(train(recipe, job["folder"], **how).metrics)
            except Diverged as error:
                ended.append({"diverged": error.step, "told": error.told})
    return ended


def main(jobs: Path) -> None:
    """Print what `work` returns, in JSON."""
    warnings.simplefilter("error")
    # torch's own writer and compiler use what torch deprecates
    for category in (UserWarning, FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module="torch")
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(work(json.loads(jobs.read_text()))) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
