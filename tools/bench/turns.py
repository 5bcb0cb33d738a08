"""Common parts of the benches: options, recipe changes, and alternating timing.

Several things are timed in turns within one run, so that noise falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import strawberry
import strawberry.model.counting  # formulas that torch's counter is without
from strawberry.generation import Sampling, sample_ids
from strawberry.model.language_model import LanguageModel
from strawberry.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
WARM_UP = 2


def options(doc: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """A parser with the options that every bench has; `doc` begins with what it does."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--json", action="store_true")
    return parser


def add_cpu_time(parser: argparse.ArgumentParser) -> None:
    """The option that makes figures of a busy machine comparable."""
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="CPU seconds of one thread, not those of the clock: for a machine that others use",
    )


def show(result: dict[str, Any], table: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Print a result as a table, or as JSON."""
    print(json.dumps(result, indent=2) if as_json else table(result))


def variant(name: str, **model: Any) -> Recipe:
    """A recipe of recipes/ with these fields of its model."""
    overrides = [f"model.{key}={json.dumps(value)}" for key, value in model.items()]
    return strawberry.load_recipe(RECIPES / name, overrides)


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    device: str = "cpu",
    *,
    told: bool = False,
) -> dict[str, list[float]]:
    """Seconds of each contender in each of `repeats` turns; who begins changes with the turn.

    With `told` they are the contender's own results.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + repeats):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            began = time.perf_counter()
            own = contenders[name]()
            if device != "cpu":
                torch.get_device_module(device).synchronize()
            if turn >= WARM_UP:
                took = time.perf_counter() - began
                seconds[name].append(own if told and isinstance(own, float) else took)
    return seconds


def flops_of(run: Callable[[], object]) -> int:
    """FLOPs of the matrix products that torch sees while it runs."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def greedy(
    model: LanguageModel, prompt: Tensor, count: int, *, use_cache: bool = True
) -> list[int]:
    """The most likely tokens after `prompt` (1, T), one at a time."""
    sampling, random = Sampling(temperature=0), torch.Generator()
    ids = sample_ids(model, prompt, count, sampling, random, use_cache=use_cache)
    return [int(token) for token in ids]


def milliseconds(times: list[float]) -> float:
    """The median, in milliseconds."""
    return 1e3 * median(times)


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """The median over turns of one time over another, and the quartiles around it."""
    low, middle, high = quantiles([a / b for a, b in zip(above, below, strict=True)], n=4)
    return {"median": middle, "from": low, "to": high}


def shown(found: Mapping[str, float]) -> str:
    """A ratio as text."""
    return f"{found['median']:.2f} ({found['from']:.2f} to {found['to']:.2f})"
