"""Cost of the referee in a trial: CPU seconds of its measurements over those of the whole training.

    python tools/bench/referee.py [RECIPE...] [--set PATH=VALUE] [--steps 600]

Each recipe is trained from the start in this process. Data is prepared before, and the referee's
caches (overlap, fidelity) are empty once and filled once. A sweep pays the second: its trials share
a cache.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from strawberry.data import open_dataset
from strawberry.files.storage import cache_folder
from strawberry.recipe import load_recipe
from strawberry.training import measuring, train

KEPT = ("overlap", "fidelity")
"""Folders of the cache that the referee keeps what it knows in."""

LOOKS = ("referee", "glance", "_note_changes")
"""What is timed, of `measuring`."""


def cost(recipe: Any) -> tuple[float, float]:
    """CPU seconds of the referee's looks, and of the whole run."""
    spent = [0.0]

    def timed(look: Callable[..., Any]) -> Callable[..., Any]:
        def looking(*given: Any) -> Any:
            began = time.process_time()
            try:
                return look(*given)
            finally:
                spent[0] += time.process_time() - began

        return looking

    with contextlib.ExitStack() as stack:
        for name in LOOKS:
            look = getattr(measuring, name)
            stack.enter_context(mock.patch.object(measuring, name, timed(look)))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        began = time.process_time()
        train(recipe, Path(folder, "run"))
        return spent[0], time.process_time() - began


def main() -> None:
    """Print a row for each recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=["recipes/llama.yaml", "recipes/air.yaml"])
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    print("| recipe | steps | first trial | later trials | of which looks |")
    print("|---|---|---|---|---|")
    for name in args.recipes:
        recipe = load_recipe(Path(name), [f"train.max_iters={args.steps}", *args.set])
        open_dataset(recipe)
        for kept in KEPT:
            shutil.rmtree(cache_folder() / kept, ignore_errors=True)
        first, later = cost(recipe), cost(recipe)
        shares = [f"{looks / (whole - looks):.2%}" for looks, whole in (first, later)]
        print(
            f"| {name} | {args.steps} | {' | '.join(shares)} | {later[0]:.1f} of {later[1]:.1f} s |"
        )


if __name__ == "__main__":
    main()
