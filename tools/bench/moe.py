"""Time of a mixture of experts, forward and backward, against two that do the same work.

    python tools/bench/moe.py [--width 256] [--hidden 256] [--threads 1] [--repeats 20] [--json]

Compared are the component `moe`, a dense `swiglu` as wide as a token's active experts together,
and the same mixture as a plain loop over experts, written below. They take turns within one run,
so that whatever else the machine does falls on all of them; ratios are medians over turns. FLOPs
are those of matrix products, counted by torch while they are done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import turns
from torch import Tensor, nn
from turns import flops_of, milliseconds, ratio, shown, take_turns

import strawberry
from strawberry.contracts import Use


@dataclass(frozen=True)
class Contender:
    """A measured function of (B, T, C), and its weights."""

    run: Callable[[Tensor], Tensor]
    weights: list[nn.Parameter]


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = turns.options(__doc__, repeats=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--width", type=int, default=256, help="model width")
    parser.add_argument("--hidden", type=int, default=256, help="hidden width of one expert")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--active", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="weights and inputs in bfloat16")
    options = parser.parse_args()
    result = measure(options)
    turns.show(result, table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if options.bfloat16 else torch.float32
    contenders = build(options, dtype)
    shape = (options.batch, options.length, options.width)
    x = torch.randn(shape, device=options.device, dtype=dtype, requires_grad=True)
    grad = torch.randn_like(x)
    with torch.no_grad():
        mixture, loop = (contenders[name].run(x).float() for name in ("moe", "loop"))
        difference = (mixture - loop).abs().max() / loop.abs().max()
    runs = {name: partial(step, one, x, grad) for name, one in contenders.items()}
    flops = {name: flops_of(run) for name, run in runs.items()}
    seconds = take_turns(runs, options.repeats, options.device)
    return {
        "shape": {**vars(options), "torch": torch.__version__},
        "largest_difference_of_moe_and_loop": float(difference),
        "flops": flops,
        "milliseconds": {name: milliseconds(times) for name, times in seconds.items()},
        "moe_over_dense": ratio(seconds["moe"], seconds["dense"]),
        "moe_over_loop": ratio(seconds["moe"], seconds["loop"]),
    }


def build(options: argparse.Namespace, dtype: torch.dtype) -> dict[str, Contender]:
    """The contenders."""
    fields = {"experts": options.experts, "active": options.active, "n_ffn": options.hidden}
    mixture = {"ffn": {"use": "moe", "balance_loss": 0.0, **fields}}
    dense = {"ffn": {"use": "swiglu", "n_ffn": options.active * options.hidden}}
    recipe = turns.variant(
        "llama.yaml",
        vocab_size=8,
        block_size=options.length,
        n_embd=options.width,
        positional="none",
        stack=[mixture, dense],
    )
    model = strawberry.build(recipe).to(options.device, dtype)
    moe, swiglu = (visit.block.ffn for visit in model.visits())
    assert moe is not None
    assert swiglu is not None
    positions = torch.arange(options.length, device=options.device)
    use = Use(positions, 0, model.positional, model.weights)
    experts = list(moe.parameters())
    return {
        "moe": Contender(lambda x: moe(x, use)[0], experts),
        "dense": Contender(lambda x: swiglu(x, use), list(swiglu.parameters())),
        "loop": Contender(lambda x: loop_over_experts(moe, x, use), experts),
    }


def loop_over_experts(moe: Any, x: Tensor, use: Use) -> Tensor:
    """The same mixture, an expert at a time: its tokens are looked for, computed and added."""
    flat = x.flatten(0, 1)
    choice = moe.router(flat)
    total = torch.zeros_like(flat)
    matrices = zip(moe.up.matrices(use), moe.down.matrices(use), strict=True)
    for expert, (up, down) in enumerate(matrices):
        token, slot = (choice.expert == expert).nonzero(as_tuple=True)
        value, gate = (flat[token] @ up.T).chunk(2, dim=-1)
        y = (value * torch.nn.functional.silu(gate)) @ down.T
        weighted = (y * choice.gate[token, slot, None]).to(y.dtype)
        total = total.index_add(0, token, weighted)
    return total.view(x.shape)


def step(contender: Contender, x: Tensor, grad: Tensor) -> None:
    """Forward and backward, to the gradients of the input and of every weight."""
    for tensor in (x, *contender.weights):
        tensor.grad = None
    torch.autograd.backward(contender.run(x), grad)


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    shape, lines = result["shape"], []
    lines.append(
        f"{shape['experts']} experts of {shape['hidden']}, {shape['active']} active; "
        f"{shape['batch']} x {shape['length']} tokens of {shape['width']}; {shape['device']}, "
        f"{'bfloat16' if shape['bfloat16'] else 'float32'}, {shape['threads']} threads, "
        f"torch {shape['torch']}"
    )
    lines.append(f"moe and loop differ by {result['largest_difference_of_moe_and_loop']:.1e}")
    lines.append(f"{'':8}{'GFLOP':>10}{'ms':>10}{'GFLOP/s':>10}")
    for name, time in result["milliseconds"].items():
        flops = result["flops"][name] / 1e9
        lines.append(f"{name:8}{flops:>10.3f}{time:>10.2f}{1e3 * flops / time:>10.1f}")
    lines += [f"moe / {one}: {shown(result[f'moe_over_{one}'])}" for one in ("dense", "loop")]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
