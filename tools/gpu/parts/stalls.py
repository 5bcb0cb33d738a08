"""Host synchronisations in a step: by torch's own debug mode, and by the pretend accelerator.

Both at small sizes: what waits depends on none, and the pretend one computes on the CPU.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench import ROOT, Bench, Measurements, Row, Wrong
from steps import Steps, every_recipe, recipe_at


def measurements(bench: Bench) -> Measurements:
    """The pretend accelerator's counts are taken once, for all recipes."""
    paths = every_recipe()[: 4 if bench.quick else None]
    counts: dict[str, dict[str, Any]] = {}
    yield "on the pretend accelerator", partial(_pretend, bench, paths, counts)
    for path in paths:
        yield path.stem, partial(compared, bench, path, counts)


def _pretend(bench: Bench, paths: list[Path], counts: dict[str, dict[str, Any]]) -> Row:
    command = [sys.executable, str(ROOT / "tools/gpu/pretended.py"), str(bench.folder)]
    command += [path.stem for path in paths]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    counts |= {line["recipe"]: line for line in found}
    row: Row = {"recipes": len(found)}
    if done.returncode:
        raise Wrong(f"the process ended with {done.returncode}; see log.txt", row)
    return row


def compared(bench: Bench, path: Path, counts: dict[str, dict[str, Any]]) -> Row:
    """Waits in one step by either count."""
    pretended = counts.get(path.stem, {})
    row: Row = {"pretended": pretended.get("waits")}
    if bench.device == "cuda":
        row["torch's own"] = _debugged(bench, path)
    row["most often"] = str(pretended.get("line", "")).removeprefix(f"{ROOT}/")
    return row


def _debugged(bench: Bench, path: Path) -> int:
    """Warnings of torch's sync debug mode, which CUDA alone has, in a step after the first."""
    small = dataclasses.replace(bench, quick=True)
    steps = Steps(recipe_at(small, path, compile=False, dtype="bfloat16", batch_size=2))
    steps.run()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            steps.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in found)
