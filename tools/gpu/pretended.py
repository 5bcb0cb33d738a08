"""Host synchronisations in steps of recipes on the pretend accelerator, as JSON lines.

A process of its own, for torch can't have a CUDA device and the pretend one in the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: str, names: list[str]) -> None:
    """A line for each recipe: reads and unpinned copies in one step, and the line most to blame."""
    from bench import RECIPES, Bench
    from steps import Steps, recipe_at

    from strawberry.check.pretend import accelerator
    from strawberry.model import grouped

    bench = Bench("pretend", True, None, Path(folder))
    grouped.WITH_KERNEL.add(bench.device)  # as CUDA
    with accelerator() as stalls:
        for name in names:
            given = {"compile": False, "dtype": "bfloat16", "batch_size": 2}
            steps = Steps(recipe_at(bench, RECIPES / f"{name}.yaml", **given))
            steps.run()
            stalls.take()
            steps.run()
            lines = stalls.counts("read", "copy")
            first = next(iter(lines), "")
            total = sum(lines.values())
            print(json.dumps({"recipe": name, "waits": total, "line": first}), flush=True)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent / "bench"), str(here.parents[1])]
    main(sys.argv[1], sys.argv[2:])
