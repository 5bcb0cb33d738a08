"""Training at 124M parameters: tokens a second, share of the peak, memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import peers
import torch
from bench import RECIPES, Bench, Measurements, Row, Skip, digits
from handwritten import Llama, Shape
from steps import Steps, halving, peak_of, recipe_at
from torch import Tensor
from turns import flops_of

from strawberry.model.accounting import account
from strawberry.recipe import Recipe
from strawberry.recipe.load import patch
from strawberry.training.optimizers import assign, state_bytes
from strawberry.training.space import total_memory

FIRST = ["speedrun", "recursive_124m", "air_124m"]


def measurements(bench: Bench) -> Measurements:
    """The speedrun's recipe and nanoGPT's block at its shape, then all siblings."""
    paths = {path.stem: path for path in sorted((RECIPES / "gpu").glob("*.yaml"))}
    names = FIRST + [name for name in paths if name.endswith("124m") and name not in FIRST]
    yield "speedrun", partial(ours, bench, paths["speedrun"], compiled=False)
    yield "nanoGPT's block", partial(peer, bench, "nanogpt")
    yield "llama by hand", partial(peer, bench, "hand")
    if bench.real:
        yield "speedrun, compiled", partial(ours, bench, paths["speedrun"], compiled="blocks")
        yield "nanoGPT's block, compiled", partial(peer, bench, "nanogpt", compiled=True)
    again = partial(ours, bench, paths["speedrun"], compiled=False, recompute=True)
    yield "speedrun, recomputed", again
    for name in names[1 : 3 if bench.quick else None]:
        yield name, partial(ours, bench, paths[name], compiled=False)
    if bench.real:
        for name in names[1:]:
            yield f"{name}, compiled", partial(ours, bench, paths[name], compiled="blocks")


def ours(
    bench: Bench, path: Path, *, compiled: Literal[False, "blocks"], recompute: bool = False
) -> Row:
    """Steps of a recipe in bfloat16, of as many sequences as fit."""
    recipe = recipe_at(
        bench, path, compile=compiled, dtype="bfloat16", checkpoint_activations=recompute,
    )  # fmt: skip
    each = account(recipe).flops_training_per_token

    def measure(batch: int) -> Row:
        steps = Steps(recipe, batch)
        steps.compile()
        peak = peak_of(bench, steps.run)
        return {
            **_speed(bench, steps.run, steps.tokens, each * steps.tokens),
            "sequences": batch,
            "GiB": None if peak is None else digits(peak / 2**30),
            "GiB of build": digits(_bytes(recipe, batch) / 2**30),
        }

    return halving(bench, _that_fits(bench, recipe), measure)


def _that_fits(bench: Bench, recipe: Recipe) -> int:
    """A batch that three quarters of the memory hold."""
    room = 0.75 * (total_memory(torch.device(bench.device)) or 0)
    batch = 2 if bench.quick else recipe.train.batch_size
    while batch > 1 and _bytes(recipe, batch) > room:
        batch //= 2
    return batch


def _bytes(recipe: Recipe, batch: int) -> int:
    """The cost of a step by `strawberry build`."""
    from strawberry.model.build import build

    recipe = patch(recipe, {"train.batch_size": batch})
    model = build(recipe, "meta")
    report = account(recipe, model)
    optimizer = state_bytes(assign(recipe, model.parameter_infos()))
    kept = report.activation_bytes + report.cast_bytes
    return 8 * report.total_parameters + optimizer + kept


def peer(bench: Bench, name: str, *, compiled: bool = False) -> Row:
    """Another model at the speedrun's shape, in autocast, with torch's fused AdamW."""
    shape = Shape(vocabulary=50304, length=1024, batch=32, layers=12, heads=12, width=768)
    if bench.quick:
        shape = Shape(vocabulary=512, length=64, batch=2, layers=3, heads=4, width=64)

    def measure(batch: int) -> Row:
        return _peer_at(bench, name, shape._replace(batch=batch), compiled)

    return halving(bench, shape.batch, measure)


def _peer_at(bench: Bench, name: str, shape: Shape, compiled: bool) -> Row:
    model = _peer(bench, name, shape).to(bench.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    run_model: Any = model.loss if name == "hand" else model
    run_model = torch.compile(run_model) if compiled else run_model
    ids = torch.randint(shape.vocabulary, (shape.batch, shape.length)).to(bench.device)

    def step() -> None:
        with torch.autocast(bench.device, torch.bfloat16):
            found = run_model(ids, ids)
        loss: Tensor = found if isinstance(found, Tensor) else found[1]
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    peak = peak_of(bench, step)
    flops = None if compiled else flops_of(step)
    return {
        **_speed(bench, step, shape.batch * shape.length, flops),
        "sequences": shape.batch,
        "GiB": None if peak is None else digits(peak / 2**30),
    }


def _peer(bench: Bench, name: str, shape: Shape) -> Any:
    if name == "hand":
        return Llama(shape)
    if bench.nanogpt is None:
        raise Skip("nanoGPT isn't here: --nanogpt names its folder or model.py")
    return peers.nanogpt(bench.nanogpt, shape)


def _speed(bench: Bench, run: Any, tokens: int, flops: float | None) -> Row:
    seconds = bench.seconds(run, None if bench.quick else 5)
    row: Row = {"ms a step": digits(1e3 * seconds), "tokens/s": round(tokens / seconds)}
    if flops is not None:
        row["of peak"] = f"{flops / seconds / bench.peak:.1%}"
        if bench.promised is not None:
            row["of data sheet"] = f"{flops / seconds / bench.promised:.1%}"
    return row
