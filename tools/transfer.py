"""Where the best learning rate is, over widths and depths, under several parametrizations.

    python tools/transfer.py sweep --out transfer.jsonl
    python tools/transfer.py draw transfer.jsonl --out transfer.png

A llama of width 64 and depth 2 is trained on the standard library's source, in short runs of one
seed, at rates a factor of 2 apart: from the best rate of the size before, until it is between two
worse ones. The best rate is the lowest point of a parabola through these three losses, over the
logarithm of the rate. Rows of `--out` are kept, and what is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
BATCH, HELD = 8, 64
WIDTHS, DEPTHS = (64, 128, 256, 512), (2, 4, 8, 16)
ARMS: dict[str, dict[str, Any]] = {
    "standard": {"use": "standard"},
    "mup": {"use": "mup", "base_width": 64},
    "complete_p": {"use": "complete_p", "base_width": 64, "base_depth": 2},
}
FIRST = 2.0**-7


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


def sweep(out: Path, steps: int, arms: list[str], axes: list[str]) -> None:
    """Train what `out` lacks, and append a row for each run."""
    known = {(r["arm"], r["width"], r["depth"], r["rate"]): r["loss"] for r in read(out)}

    def loss(arm: str, width: int, depth: int, rate: float) -> float:
        key = (arm, width, depth, rate)
        if key not in known:
            known[key] = trained(recipe_for(arm, width, depth, steps, rate))
            with out.open("a") as file:
                names = dict(zip(("arm", "width", "depth", "rate"), key, strict=True))
                file.write(json.dumps({**names, "loss": known[key], "steps": steps}) + "\n")
        return known[key]

    for axis in axes:
        for arm in arms:
            best = FIRST
            for size in WIDTHS if axis == "width" else DEPTHS:
                width, depth = (size, 2) if axis == "width" else (64, size)
                best = bracketed(lambda r, a=arm, w=width, d=depth: loss(a, w, d, r), best)


def bracketed(loss: Any, start: float) -> float:
    """The best of rates a factor of 2 apart, once its neighbours are both worse."""
    rates = [start / 2, start, 2 * start]
    while True:
        losses = [loss(rate) for rate in rates]
        best = min(range(len(rates)), key=losses.__getitem__)
        if best == 0:
            rates.insert(0, rates[0] / 2)
        elif best == len(rates) - 1:
            rates.append(2 * rates[-1])
        else:
            return rates[best]


def read(out: Path) -> list[dict[str, Any]]:
    """The rows of a sweep."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def best_rates(rows: list[dict[str, Any]], axis: str) -> Iterator[tuple[str, int, float]]:
    """(arm, size, best rate) along one axis."""
    other, fixed = ("depth", 2) if axis == "width" else ("width", 64)
    for arm in ARMS:
        mine = [r for r in rows if r["arm"] == arm and r[other] == fixed]
        for size in sorted({r[axis] for r in mine}):
            curve = sorted((r["rate"], r["loss"]) for r in mine if r[axis] == size)
            place = min(range(len(curve)), key=lambda i: curve[i][1])
            if 0 < place < len(curve) - 1:
                yield arm, size, lowest(curve[place - 1 : place + 2])


def lowest(three: list[tuple[float, float]]) -> float:
    """The lowest point of a parabola through three losses, over the logarithm of the rate."""
    (left, a), (rate, b), (_, c) = three
    if not math.isfinite(a + c):
        return rate
    return rate * (rate / left) ** ((a - c) / (2 * (a - 2 * b + c)))


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Loss against rate for each size, a row of pictures for widths and one for depths."""
    figure, save = canvas(4 * len(ARMS), 7)
    axes = figure.subplots(2, len(ARMS), sharex=True, sharey="row")
    for row, axis in enumerate(("width", "depth")):
        best = {(arm, size): rate for arm, size, rate in best_rates(rows, axis)}
        other, fixed = ("depth", 2) if axis == "width" else ("width", 64)
        for place, (column, arm) in zip(axes[row], enumerate(ARMS), strict=True):
            del column
            mine = [r for r in rows if r["arm"] == arm and r[other] == fixed]
            for number, size in enumerate(sorted({r[axis] for r in mine})):
                curve = sorted((r["rate"], r["loss"]) for r in mine if r[axis] == size)
                told = f"{axis} {size}"
                if (arm, size) in best:
                    told += f": {best[arm, size]:.2g}"
                    place.axvline(best[arm, size], color=f"C{number}", alpha=0.3)
                place.plot(*zip(*curve, strict=True), marker="o", color=f"C{number}", label=told)
            place.set_xscale("log", base=2)
            place.set_title(f"{arm}, {axis}")
            place.legend(frameon=False, fontsize="small")
            place.grid(alpha=0.25)
    axes[0][0].set_ylabel("loss, nats a byte")
    axes[1][0].set_xlabel("peak learning rate")
    save(out)


def moved(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each arm and axis: its best rates, and the largest over the smallest."""
    for axis in ("width", "depth"):
        for arm in ARMS:
            rates = {size: rate for name, size, rate in best_rates(rows, axis) if name == arm}
            if rates:
                told = ", ".join(f"{size}: {rate:.2e}" for size, rate in rates.items())
                ratio = max(rates.values()) / min(rates.values())
                yield f"{axis:<6} {arm:<11} {told}; moves {ratio:.2f}x"


def main() -> None:
    """Sweep, or draw what was swept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["sweep", "draw"])
    parser.add_argument("rows", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--axes", nargs="*", default=["width", "depth"])
    options = parser.parse_args()
    if options.what == "sweep":
        sweep(options.out, options.steps, options.arms, options.axes)
        print(*moved(read(options.out)), sep="\n")
    else:
        draw(read(options.rows), options.out)
        print(*moved(read(options.rows)), sep="\n")


if __name__ == "__main__":
    main()
