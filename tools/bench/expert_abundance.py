"""FLOPs and time of the Expert Abundance by its active experts, against its plain form.

    python tools/bench/expert_abundance.py [--width 256] [--window 64] [--threads 1] [--json]

Compared are 1, 2, 4 ... active experts, with local windows, and the plain form: all heads, over the
whole past, one mini-FFN. Forward and backward, in turns within one run. FLOPs are those of the cost
report for a sequence, forward.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import turns
from torch import Tensor
from turns import milliseconds, ratio, shown, take_turns

import strawberry
from strawberry.contracts import Use, with_aux
from strawberry.model.accounting import account


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = turns.options(__doc__, repeats=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=1024, help="tokens of a sequence")
    parser.add_argument("--width", type=int, default=256, help="model width")
    parser.add_argument("--n-qkv", type=int, default=1024, help="width of all heads together")
    parser.add_argument("--n-head", type=int, default=16)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    result = measure(options)
    turns.show(result, table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    routed = {"experts": options.experts, "window": options.window}
    forms: dict[str, dict[str, Any]] = {"plain": {}}
    active = 1
    while active <= options.experts:
        forms[f"{active} of {options.experts}"] = {**routed, "active": active}
        active *= 2
    flops: dict[str, int] = {}
    runs: dict[str, Callable[[], object]] = {}
    for name, fields in forms.items():
        flops[name], runs[name] = contender(options, fields)
    seconds = take_turns(runs, options.repeats, options.device)
    return {
        "shape": {**vars(options), "torch": torch.__version__},
        "flops": flops,
        "milliseconds": {name: milliseconds(times) for name, times in seconds.items()},
        "over_plain": {name: ratio(times, seconds["plain"]) for name, times in seconds.items()},
    }


def contender(
    options: argparse.Namespace, fields: dict[str, Any]
) -> tuple[int, Callable[[], object]]:
    """Forward FLOPs of a mixer with these fields, and a function that runs it both ways."""
    mixer = {"use": "expert_abundance", "n_head": options.n_head, "n_qkv": options.n_qkv, **fields}
    recipe = turns.variant(
        "llama.yaml",
        vocab_size=8,
        block_size=options.length,
        n_embd=options.width,
        stack=[{"attention": mixer}],
    )
    flops = account(recipe).parts[0].cost.flops_forward
    model = strawberry.build(recipe).to(options.device).train()
    attention = model.visits()[0].block.attention
    assert attention is not None
    positions = torch.arange(options.length, device=options.device)
    shape = (options.batch, options.length, options.width)
    x = torch.randn(shape, device=options.device, requires_grad=True)
    grad = torch.randn_like(x)
    inputs: list[Tensor] = [x, *attention.parameters()]

    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        use = Use(positions, 0, model.positional, model.weights)
        y, _ = with_aux(attention(x, use))
        torch.autograd.backward(y, grad)

    return flops, run


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    shape = result["shape"]
    lines = [
        f"{shape['batch']} x {shape['length']} tokens of {shape['width']}, heads of "
        f"{shape['n_qkv']} in all, windows of {shape['window']}; {shape['device']}, float32, "
        f"{shape['threads']} threads, torch {shape['torch']}",
        f"{'active':10}{'GFLOP':>8}{'of plain':>10}{'ms':>10}  time over plain (quartiles)",
    ]
    whole = result["flops"]["plain"]
    for name, flops in result["flops"].items():
        lines.append(
            f"{name:10}{flops / 1e9:>8.3f}{flops / whole:>10.2f}"
            f"{result['milliseconds'][name]:>10.1f}  {shown(result['over_plain'][name])}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
