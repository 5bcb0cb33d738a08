"""Savings by routing: training time by capacity, and generation speed by depth.

    python tools/bench/recursion.py [--width 256] [--length 512] [--steps 4] [--threads 1] [--json]

Training: one forward and backward pass of a recursion over two blocks, in which all steps but the
first take a share of the tokens (expert choice), against the same recursion without a router.
Generation: greedy, with a cache, of a model whose tokens all choose the same depth (token choice).
In turns within one run. FLOPs are those that torch counts in the pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import turns
from turns import flops_of, greedy, milliseconds, ratio, shown, take_turns

import strawberry
from strawberry.model.language_model import LanguageModel

SHARES = (1.0, 0.5, 0.25, 0.125)


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = turns.options(__doc__, repeats=5)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--length", type=int, default=512, help="tokens of a sequence")
    parser.add_argument("--steps", type=int, default=4, help="recursion steps")
    parser.add_argument("--tokens", type=int, default=64, help="how many to generate")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "shape": {**vars(options), "torch": torch.__version__},
        "training": training(options),
        "generation": generation(options),
    }
    turns.show(result, table, options.json)


def build(options: argparse.Namespace, router: dict[str, Any] | None) -> LanguageModel:
    """A recursion over two blocks."""
    block = {
        "attention": {"use": "mha", "n_head": options.width // 64},
        "ffn": {"use": "swiglu"},
    }
    recur = {"recur": options.steps, "stack": [{"repeat": 2, **block}]}
    if router is not None:
        recur["router"] = router
    recipe = turns.variant(
        "recursive.yaml",
        vocab_size=1024,
        block_size=options.length,
        n_embd=options.width,
        stack=[recur],
    )
    return strawberry.build(recipe)


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Time and FLOPs of a pass by the share of tokens that later steps take."""
    idx = torch.randint(1024, (1, options.length))
    runs: dict[str, Callable[[], object]] = {"no router": partial(step, build(options, None), idx)}
    for share in SHARES:
        capacity = [1.0, *[share] * (options.steps - 1)]
        router = {"use": "expert_choice", "capacity": capacity}
        runs[f"{share:g}"] = partial(step, build(options, router), idx)
    flops = {name: flops_of(run) for name, run in runs.items()}
    seconds = take_turns(runs, options.repeats)
    return {
        name: {
            "gflop": flops[name] / 1e9,
            "milliseconds": milliseconds(times),
            "over_no_router": ratio(times, seconds["no router"]),
        }
        for name, times in seconds.items()
    }


def step(model: LanguageModel, idx: torch.Tensor) -> None:
    """Forward and backward."""
    model.zero_grad()
    model.loss(idx, idx).total.backward()  # type: ignore[no-untyped-call]


def generation(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second by the depth that every token chooses."""
    runs: dict[str, Callable[[], object]] = {
        "no router": partial(sample, build(options, None), options)
    }
    for depth in range(1, options.steps + 1):
        model = build(options, {"use": "token_choice", "bias_rate": 1e-3})
        (router,) = [m for m in model.modules() if hasattr(m, "bias_rate") and hasattr(m, "load")]
        router.bias[depth - 1] = 1e3  # type: ignore[operator]
        runs[f"{depth}"] = partial(sample, model, options)
    seconds = take_turns(runs, options.repeats)
    return {
        name: {
            "tokens_per_second": 1e3 * options.tokens / milliseconds(times),
            "speed_over_no_router": ratio(seconds["no router"], times),
        }
        for name, times in seconds.items()
    }


def sample(model: LanguageModel, options: argparse.Namespace) -> None:
    """Greedy generation of this many tokens."""
    greedy(model.eval(), torch.zeros(1, 16, dtype=torch.long), options.tokens)


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    shape = result["shape"]
    lines = [
        f"2 blocks of width {shape['width']}, {shape['steps']} steps, {shape['length']} tokens; "
        f"cpu, float32, {shape['threads']} threads, torch {shape['torch']}",
        f"{'later steps':14}{'GFLOP':>8}{'ms':>10}   time over no router (quartiles)",
    ]
    for name, row in result["training"].items():
        over = shown(row["over_no_router"])
        lines.append(f"{name:14}{row['gflop']:>8.3f}{row['milliseconds']:>10.1f}   {over}")
    lines.append(f"{'depth':14}{'tokens/s':>12}   speed over no router (quartiles)")
    for name, row in result["generation"].items():
        over = shown(row["speed_over_no_router"])
        lines.append(f"{name:14}{row['tokens_per_second']:>12.1f}   {over}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
