"""Every recipe through 20 steps of training: the loss falls, a resumed run is the unbroken one."""

from __future__ import annotations

import functools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench import Bench, Measurements, Row, Skip, Wrong, digits
from steps import Steps, every_recipe, recipe_at

from strawberry.training import train

STEPS = 20


def measurements(bench: Bench) -> Measurements:
    """All of them eager, then compiled."""
    paths = every_recipe()[: 6 if bench.quick else None]
    for path in paths:
        yield f"{path.stem}, eager", partial(eager, bench, path)
    for path in paths[:1] if bench.quick else paths:
        yield f"{path.stem}, compiled", partial(compiled, bench, path)


def eager(bench: Bench, path: Path) -> Row:
    """A run without a break, and one resumed half-way, by kernels that repeat themselves."""
    steps = 4 if bench.quick else STEPS
    given: dict[str, Any] = {
        "compile": False, "eval_interval": 0, "log_interval": 1, "warmup_iters": 2,
        "checkpoint_interval": steps // 2, "lr_decay_iters": 10 * steps,
    }  # fmt: skip
    losses = []
    for name, stops in (("whole", [steps]), ("parts", [steps // 2, steps])):
        folder = bench.folder / f"{path.stem}-{name}"
        for stop in stops:
            recipe = recipe_at(bench, path, **given, max_iters=stop)
            with _repeatable():
                train(recipe, folder, resume=stop != stops[0])
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        losses.append({row["step"]: row["loss"] for row in rows if "loss" in row})
        shutil.rmtree(folder)
    whole, parts = losses
    row: Row = {
        "first loss": digits(whole[1]),
        "last loss": digits(whole[steps]),
        "resumed": "equal" if whole == parts else _apart(whole, parts),
    }
    some = 1 if bench.quick else 5
    if not min(sum(whole[n + k] for k in range(some)) for n in range(2, steps - some + 2)) < sum(
        whole[n] for n in range(1, some + 1)
    ):
        raise Wrong("the loss does not fall", row)
    if row["resumed"] != "equal" and row["resumed"] > 1e-3:
        raise Wrong("a resumed run is another one", row)
    return row


def _apart(whole: dict[int, float], parts: dict[int, float]) -> float:
    return digits(max(abs(whole[step] - parts[step]) for step in whole))


def compiled(bench: Bench, path: Path) -> Row:
    """Graphs of compiled blocks, breaks in them, what was compiled after the first step; the loss.

    That is compared with eager's.
    """
    if bench.device == "pretend":
        raise Skip("the pretend accelerator has no compiler")
    counters: dict[str, Counter[str]] = torch._dynamo.utils.counters  # noqa: SLF001 (no other way)
    counters.clear()
    losses: list[float] = []
    first = later = 0
    for how in (False, "blocks"):
        torch.manual_seed(0)
        with _quick_compiler(bench):
            steps = Steps(recipe_at(bench, path, compile=how))
            steps.compile()
            steps.run()
            first = counters["frames"]["ok"]
            for _ in range(1 if bench.quick else STEPS - 1):
                steps.run()
            later = counters["frames"]["ok"]
            with steps.machine.autocast():  # with gradients, which the graph is compiled for
                losses.append(float(steps.model.loss(*steps.parts[0]).total.detach()))
    row: Row = {
        "last loss": digits(losses[1]),
        "from eager": digits(abs(losses[1] - losses[0])),
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
        "recompiled": later - first,
    }
    if not abs(losses[1] - losses[0]) < 0.1:
        raise Wrong("compiled, the loss is another one", row)
    return row


@contextmanager
def _repeatable() -> Iterator[None]:
    """Sums in one order, where torch has such kernels; with others runs differ by rounding."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def _quick_compiler(bench: Bench) -> Iterator[None]:
    """Where it is to be quick, graphs are made and checked, and run without code of their own."""
    plain = torch.compile
    if bench.quick:
        torch.compile = functools.partial(plain, backend="eager")
    try:
        yield
    finally:
        torch.compile = plain
