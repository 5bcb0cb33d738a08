"""Where the best learning rate is, over widths and depths, under several parametrizations.

    python tools/transfer.py sweep --out transfer.jsonl [--seeds 3] [--arms mup] [--axes width]
    python tools/transfer.py draw transfer.jsonl --out transfer.png

A llama of width 64 and depth 2 is trained on the standard library's source, in short runs, at rates
a factor of 2 apart: from the best rate of the size before, until two rates on either side of the
best are known. A loss is the mean over seeds, which have the same data at every size. The best rate
is the lowest point of a parabola fitted to these five losses, over the logarithm of the rate: near
the best rate losses differ by less than the noise of seeds, so its place is known by where the loss
rises on both sides.
Rows of `--out` are kept, and what is there is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

import strawberry
from strawberry.data import open_dataset
from strawberry.recipe import patch, recipe_from, resized
from strawberry.runs.plot import canvas
from strawberry.training.optimizers import Optimizers

MODEL = {
    "vocab_size": 257,
    "block_size": 64,
    "n_embd": 64,
    "tie_embeddings": False,
    "positional": "rope",
    "stack": [
        {
            "repeat": 2,
            "attention": {"use": "mha", "n_head": 4},
            "ffn": {"use": "swiglu", "n_ffn": 176},
        }
    ],
}
BATCH, HELD = 8, 128
SIZES = {"width": (64, 128, 256, 512), "depth": (2, 4, 8, 16)}
ARMS: dict[str, dict[str, Any]] = {
    "standard": {"use": "standard"},
    "mup": {"use": "mup", "base_width": 64},
    "mup_zero": {"use": "mup", "base_width": 64, "zero_outputs": True},
    "complete_p": {"use": "complete_p", "base_width": 64, "base_depth": 2},
}
FIRST = -7
"""The first rate tried, as a power of 2."""
AROUND = 2
"""Rates on either side of the best one, a factor of 2 apart."""


KEY = ("arm", "width", "depth", "rate", "seed")
"""What tells one run from another."""


def recipe_for(arm: str, width: int, depth: int, steps: int, rate: float) -> Any:
    """The recipe of one run."""
    base = recipe_from(
        {
            "name": arm,
            "model": {**MODEL, "parametrization": ARMS[arm]},
            "tokenizer": "bytes",
            "optimizer": {"use": "adamw", "betas": [0.9, 0.95], "weight_decay": 0.0},
            "schedule": "linear",
            "train": {"max_iters": steps, "warmup_iters": steps // 8, "min_lr": 0},
        },
        "transfer",
    )
    return patch(resized(base, width, depth / 2), {"train.learning_rate": rate})


def trained(recipe: Any, seed: int = 0) -> float:
    """The mean loss of held-back rows after training, in nats a byte."""
    recipe = patch(recipe, {"seed": seed})
    data, length, steps = open_dataset(recipe), recipe.model.block_size, recipe.train.max_iters
    model = strawberry.build(recipe).train()
    optimizers = Optimizers(recipe, model.parameter_infos(), torch.device("cpu"))
    for step in range(steps):
        loss = model.loss(*_rows(data, "train", step * BATCH, BATCH, length)).total
        if not loss.isfinite():
            return math.inf
        optimizers.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(step)
        model.after_step()
    with torch.no_grad():
        return float(model.eval().loss(*_rows(data, "val", 0, HELD, length)).cross_entropy)


def _rows(data: Any, split: str, first: int, count: int, length: int) -> list[torch.Tensor]:
    return [torch.from_numpy(r) for r in data.rows(split, first, count, block_size=length, seed=0)]


def sweep(out: Path, steps: int, arms: list[str], axes: list[str], seeds: list[int]) -> None:
    """Train what `out` lacks, and append a row for each run.

    Args:
        out: the file of rows.
        steps: length of a run.
        arms: names in `ARMS`.
        axes: "width", "depth".
        seeds: how many there are of each run; or how many at each size of an axis.
    """
    losses = {tuple(r[name] for name in KEY): r["loss"] for r in read(out)}

    def one(key: tuple[Any, ...]) -> float:
        if key not in losses:
            arm, width, depth, rate, seed = key
            losses[key] = trained(recipe_for(arm, width, depth, steps, rate), seed)
            with out.open("a") as file:
                row = {**dict(zip(KEY, key, strict=True)), "loss": losses[key], "steps": steps}
                file.write(json.dumps(row) + "\n")
        return losses[key]

    def loss(arm: str, axis: str, place: int, power: int) -> float:
        size = SIZES[axis][place]
        width, depth = (size, 2) if axis == "width" else (64, size)
        count = seeds[place if len(seeds) > 1 else 0]
        return fmean(one((arm, width, depth, 2.0**power, n)) for n in range(count))

    for axis, arm in itertools.product(axes, arms):
        best = FIRST
        for place in range(len(SIZES[axis])):
            best = bracketed(partial(loss, arm, axis, place), best)


def bracketed(loss: Callable[[int], float], start: int) -> int:
    """The best power of 2, once `AROUND` rates on either side of it are known."""
    best = start
    while True:
        near = range(best - AROUND, best + AROUND + 1)
        least = min(near, key=loss)
        if least == best:
            return best
        best = least


def read(out: Path) -> list[dict[str, Any]]:
    """The rows of a sweep."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def curves(rows: list[dict[str, Any]], arm: str, axis: str) -> dict[int, list[tuple[float, float]]]:
    """(rate, mean loss) by size along one axis, in the order of rates."""
    other, fixed = ("depth", 2) if axis == "width" else ("width", 64)
    losses: dict[int, dict[float, list[float]]] = {}
    for row in rows:
        if row["arm"] == arm and row[other] == fixed:
            losses.setdefault(row[axis], {}).setdefault(row["rate"], []).append(row["loss"])
    return {
        size: sorted((rate, fmean(each)) for rate, each in losses[size].items())
        for size in sorted(losses)
    }


def best_rates(rows: list[dict[str, Any]], axis: str) -> Iterator[tuple[str, int, float]]:
    """(arm, size, best rate) along one axis."""
    for arm in ARMS:
        for size, curve in curves(rows, arm, axis).items():
            place = min(range(len(curve)), key=lambda i: curve[i][1])
            if AROUND <= place < len(curve) - AROUND:
                yield arm, size, lowest(curve[place - AROUND : place + AROUND + 1])


def lowest(curve: list[tuple[float, float]]) -> float:
    """The lowest point of a parabola through losses, over the logarithm of the rate."""
    finite = [(math.log(rate), loss) for rate, loss in curve if math.isfinite(loss)]
    bent, slope, _ = np.polyfit([x for x, _ in finite], [y for _, y in finite], 2)
    return math.exp(-slope / (2 * bent))


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Loss against rate for each size: a row for each axis, with the arms swept along it."""
    swept = {axis: [arm for arm in ARMS if len(curves(rows, arm, axis)) > 1] for axis in SIZES}
    swept = {axis: arms for axis, arms in swept.items() if arms}
    columns = max(map(len, swept.values()))
    figure, save = canvas(4.5 * columns, 3.5 * len(swept))
    places = figure.subplots(len(swept), columns, sharex=True, sharey="row", squeeze=False)
    for row, (axis, arms) in zip(places, swept.items(), strict=True):
        best = {(arm, size): rate for arm, size, rate in best_rates(rows, axis)}
        for place in row[len(arms) :]:
            place.set_visible(False)
        for place, arm in zip(row, arms, strict=False):
            for number, (size, curve) in enumerate(curves(rows, arm, axis).items()):
                told = f"{axis} {size}"
                if (arm, size) in best:
                    told += f": {best[arm, size]:.2g}"
                    place.axvline(best[arm, size], color=f"C{number}", alpha=0.3)
                place.plot(*zip(*curve, strict=True), marker="o", color=f"C{number}", label=told)
            place.set_xscale("log", base=2)
            place.set_title(f"{arm}, {axis}")
            place.legend(frameon=False, fontsize="small")
            place.grid(alpha=0.25)
        row[0].set_ylabel("loss, nats a byte")
    for place in places[-1]:
        place.set_xlabel("peak learning rate")
    save(out)


def moved(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each arm and axis: its best rates, and the largest over the smallest."""
    for axis in ("width", "depth"):
        for arm in ARMS:
            rates = {size: rate for name, size, rate in best_rates(rows, axis) if name == arm}
            if len(rates) > 1:
                told = ", ".join(f"{size}: {rate:.2e}" for size, rate in rates.items())
                ratio = max(rates.values()) / min(rates.values())
                yield f"{axis:<6} {arm:<11} {told}; moves {ratio:.2f}x"


def main() -> None:
    """Sweep, or draw what was swept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["sweep", "draw"])
    parser.add_argument("rows", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--axes", nargs="*", default=["width", "depth"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[3])
    options = parser.parse_args()
    if options.what == "sweep":
        sweep(options.out, options.steps, options.arms, options.axes, options.seeds)
        print(*moved(read(options.out)), sep="\n")
    else:
        draw(read(options.rows), options.out)
        print(*moved(read(options.rows)), sep="\n")


if __name__ == "__main__":
    main()
