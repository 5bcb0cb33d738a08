"""Decoding, and what single choices cost: a mixture, AFT, Muon."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any, get_args

import aft
import moe
import torch
from bench import RECIPES, Bench, Measurements, Row, Skip, digits
from steps import recipe_at
from turns import greedy

from strawberry.generation.packing import WeightFormat, pack_weights
from strawberry.model.build import build
from strawberry.model.language_model import LanguageModel
from strawberry.profiling.step import OPTIMIZER, profile


def measurements(bench: Bench) -> Measurements:
    """Tokens a second in every format of weights, then the rest."""
    yield "speedrun, plain weights", partial(decode, bench, None)
    for weights in get_args(WeightFormat):
        yield f"speedrun, {weights} packed", partial(decode, bench, weights)
    yield "speedrun, one step as a CUDA graph", partial(graph, bench)
    yield "mixture against dense", partial(mixture, bench)
    yield "AFT against fused attention", partial(attention_free, bench)
    yield "Muon's share of a step", partial(muon, bench)


def _model(bench: Bench) -> LanguageModel:
    return build(recipe_at(bench, RECIPES / "gpu/speedrun.yaml"), bench.device).eval()


def decode(bench: Bench, weights: WeightFormat | None) -> Row:
    """Greedy decoding of one sequence."""
    model = _model(bench)
    if weights is not None:
        pack_weights(model, weights)
    prompt = torch.arange(7, 15)[None].to(bench.device)
    count = 16 if bench.quick else 128
    greedy(model, prompt, count)
    began = time.perf_counter()
    greedy(model, prompt, count)
    return {"tokens/s": digits(count / (time.perf_counter() - began))}


def graph(bench: Bench) -> Row:
    """One cached step, replayed as a graph: what the host's work for each kernel costs.

    The graph writes to one place of the cache over and over, so it shows time and no text.
    """
    if bench.device != "cuda":
        raise Skip("CUDA graphs are CUDA's")
    model = _model(bench)
    token = torch.zeros(1, 1, dtype=torch.long, device=bench.device)
    with torch.inference_mode():
        cache = model.new_cache(batch=1, length=64)
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):  # warm up apart, as torch asks for
            for _ in range(3):
                model(token, cache=cache)
        torch.cuda.synchronize()
        eager = bench.seconds(lambda: model(token, cache=cache))
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            model(token, cache=cache)
        replayed = bench.seconds(captured.replay)
    return {"tokens/s": digits(1 / eager), "as a graph": digits(1 / replayed)}


def mixture(bench: Bench) -> Row:
    """8 experts, top-2, against a dense network of the active width, forward and backward."""
    large = bench.real
    found = moe.measure(
        argparse.Namespace(
            threads=torch.get_num_threads(), repeats=3 if bench.quick else 10,
            batch=8 if large else 1, length=1024 if large else 64, width=768 if large else 64,
            hidden=1536 if large else 64, experts=8, active=2, device=bench.device,
            bfloat16=large,
        )
    )  # fmt: skip
    return {
        "ms": digits(found["milliseconds"]["moe"]),
        "over the plain one": digits(found["moe_over_dense"]["median"]),
        "over a loop": digits(found["moe_over_loop"]["median"]),
    }


def attention_free(bench: Bench) -> Row:
    """The sums of AFT, forward and backward, over torch's fused attention."""
    options = argparse.Namespace(
        threads=torch.get_num_threads(), repeats=3 if bench.quick else 5,
        batch=8 if bench.real else 1, width=768 if bench.real else 64, device=bench.device,
    )  # fmt: skip
    found = aft.measure(options, 1024 if bench.real else 64)
    over = {name: digits(ratio["median"]) for name, ratio in found["over_sdpa"].items()}
    del over["sdpa"]
    return {f"{name} over fused": value for name, value in over.items()}


def muon(bench: Bench) -> Row:
    """The optimizer's part of the speedrun's step, by `strawberry profile`."""
    given = {"dtype": "bfloat16", "batch_size": 16, "gradient_accumulation_steps": 1}
    if bench.quick:
        given["batch_size"] = 2
    found = profile(recipe_at(bench, RECIPES / "gpu/speedrun.yaml", **given), steps=2)
    row = next(row for row in found.rows if row.name == OPTIMIZER)
    return {"of a step": f"{row.seconds / found.seconds:.1%}", "ms": digits(1e3 * row.seconds)}
