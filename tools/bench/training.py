"""Training steps of our recipes against other libraries, and against the same model by hand.

    python tools/bench/training.py [--shape S|M] [--dtype float32|bfloat16] [--compile]
        [--nanogpt PATH] [--original PATH] [--only NAME...] [--threads 2] [--repeats 7] [--json]

A step is forward, backward and AdamW on one batch. Each contender has its own process, and they
alternate within one run. Ratios are over nanoGPT, or over the first contender without it.
`--nanogpt` and `--original` are the folders (or `model.py` files) of those projects. Packages that
are not installed are skipped, and named. Ours keep freed memory, as `strawberry train` does by
default; the others run unchanged. The hand-written llama has all of our optimisations, so its
difference from ours is the cost of modularity. A share of the peak is that of a product of two
matrices of 2,048, measured in alternation with the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import peers
import torch
import turns
from handwritten import Llama
from torch import Tensor, nn
from turns import flops_of, milliseconds, ratio, shown, take_turns
from workers import Contender, Imports, Maker, working

import strawberry
from strawberry.model.stack import recompute_blocks
from strawberry.training.optimizers import Optimizers

SIDE = 2048  # of the matrices whose product is the peak
RUNS = {"S": 4, "M": 1}  # steps in a turn


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = turns.options(__doc__, repeats=7)
    parser.set_defaults(threads=2)
    turns.add_cpu_time(parser)
    parser.add_argument("--shape", choices=peers.SHAPES, default="S")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="compiled forms too")
    parser.add_argument("--nanogpt", metavar="PATH", help="nanoGPT's folder or model.py")
    parser.add_argument(
        "--original", metavar="PATH", help="the original project's folder or model.py"
    )
    parser.add_argument("--only", metavar="NAME", nargs="+", help="contenders that contain NAME")
    options = parser.parse_args()
    turns.show(measure(options), table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    chosen = {
        name: maker
        for name, maker in contenders(options).items()
        if not options.only or any(part in name for part in options.only) or "matmul" in name
    }
    runs = RUNS[options.shape]
    with working(chosen, options.threads) as (workers, absent):
        steps: dict[str, Callable[[], object]] = {
            name: partial(worker, runs) for name, worker in workers.items()
        }
        seconds = take_turns(steps, options.repeats, told=options.cpu_time)
        peaks = {name: worker.peak for name, worker in workers.items()}
        flops = {name: worker.flops for name, worker in workers.items()}
    for name in seconds:
        seconds[name] = [time / runs for time in seconds[name]]
    first = next(iter(name for name in seconds if "matmul" not in name))
    fastest = flops["matmul"] / min(seconds["matmul"])
    shape = peers.SHAPES[options.shape]
    return {
        "shape": {**vars(options), "torch": torch.__version__, "over": first},
        "peak_gflops": fastest / 1e9,
        "absent": absent,
        "hand_written_differs_by": agreement(),
        "contenders": {
            name: {
                "milliseconds": milliseconds(times),
                "least_milliseconds": 1e3 * min(times),
                "tokens_per_second": shape.batch * shape.length / min(times),
                "speed": ratio(seconds[first], times),
                "speed_of_least": min(seconds[first]) / min(times),
                "share_of_peak": flops[name] / min(times) / fastest,
                "peak_bytes": peaks[name],
            }
            for name, times in seconds.items()
            if name != "matmul"
        },
        "modularity": {
            name: ratio(seconds[f"ours: {name}"], seconds[f"hand: {name}"])
            for name in ("llama", "llama, compiled")
            if {f"ours: {name}", f"hand: {name}"} <= {*seconds}
        },
    }


def contenders(options: argparse.Namespace) -> dict[str, tuple[Maker, bool]]:
    """The contenders: how to create each, and whether its process keeps freed memory."""
    found: dict[str, tuple[Maker, bool]] = {}
    give = partial(partial, shape=options.shape, dtype=options.dtype)
    forms = [("", False), (", compiled", True)] if options.compile else [("", False)]
    for after, compiled in forms:
        if options.nanogpt:
            make = give(nanogpt_step, options.nanogpt, compiled=compiled)
            found[f"nanoGPT{after}"] = make, False
        if options.original:
            found[f"the original{after}"] = (
                give(original_step, options.original, compiled=compiled),
                False,
            )
        found[f"hand: llama{after}"] = give(hand_step, compiled=compiled), True
        for name in ("llama", "gpt2", "original_air"):
            found[f"ours: {name}{after}"] = give(our_step, name, compiled=compiled), True
    for name in ("llama", "gpt2"):
        make = give(our_step, name, compiled=False, recompute=True)
        found[f"ours: {name}, recomputed"] = make, True
    if options.nanogpt:
        found["nanoGPT, memory kept"] = give(nanogpt_step, options.nanogpt, compiled=False), True
    for name in ("transformers", "x_transformers", "litgpt"):
        found[name] = give(peer_step, name), False
    found["matmul"] = partial(product, options.dtype), True
    return found


def our_step(
    name: str, *, shape: str, dtype: str, compiled: bool, recompute: bool = False
) -> Contender:
    """A recipe of ours, with its own optimizer; `recompute` is `train.checkpoint_activations`."""
    Imports.done()
    recipe = peers.recipe(name, peers.SHAPES[shape])
    model = strawberry.build(recipe).train()
    optimizers = Optimizers(recipe, model.parameter_infos(), torch.device("cpu"))
    if recompute:
        recompute_blocks(model)
    if compiled:
        model.compile_trunk()

    def update() -> None:
        optimizers.step(0)
        model.after_step()
        optimizers.zero_grad()

    return _step(lambda x, y: model.loss(x, y).total, update, shape, dtype)


def hand_step(*, shape: str, dtype: str, compiled: bool) -> Contender:
    """The llama of handwritten.py."""
    Imports.done()
    model = Llama(peers.SHAPES[shape])
    if compiled:
        model.trunk = torch.compile(model.trunk)  # type: ignore[method-assign]
    return _step(model.loss, _adamw(model), shape, dtype)


def nanogpt_step(path: str, *, shape: str, dtype: str, compiled: bool) -> Contender:
    """NanoGPT, with the optimizer that its `train.py` asks it for."""
    Imports.done()
    model: Any = peers.nanogpt(path, peers.SHAPES[shape])
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
    if compiled:
        model = torch.compile(model)
    return _step(lambda x, y: model(x, y)[1], _updating(optimizer), shape, dtype)


def original_step(path: str, *, shape: str, dtype: str, compiled: bool) -> Contender:
    """The original project's model, with torch's AdamW."""
    Imports.done()
    model: Any = peers.original(path, peers.SHAPES[shape])
    update = _adamw(model)
    if compiled:
        model = torch.compile(model)
    return _step(lambda x, y: model(x, y)[1], update, shape, dtype)


def peer_step(name: str, *, shape: str, dtype: str) -> Contender:
    """A library's llama, with torch's fused AdamW."""
    model = getattr(peers, name)(peers.SHAPES[shape])
    Imports.done()
    return _step(partial(peers.plain_loss, model.train()), _adamw(model), shape, dtype)


def product(dtype: str) -> Contender:
    """The product that stands for the machine's peak."""
    a, b = (torch.randn(SIDE, SIDE, dtype=getattr(torch, dtype)) for _ in range(2))
    return Contender(lambda: a @ b, flops=2 * SIDE**3)


def _step(
    loss: Callable[[Tensor, Tensor], Tensor], update: Callable[[], None], shape: str, dtype: str
) -> Contender:
    sizes = peers.SHAPES[shape]
    ids = torch.randint(sizes.vocabulary, (sizes.batch, sizes.length + 1))
    x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            value = loss(x, y)
        value.backward()  # type: ignore[no-untyped-call]
        update()

    for _ in range(3):  # a compiler sees a plain first call, and no counter around it
        run()
    peak = Imports.peak()  # a counter holds on to more than a step does
    with torch.compiler.set_stance("force_eager"):
        return Contender(run, flops_of(run), peak=peak)


def _adamw(model: nn.Module) -> Callable[[], None]:
    return _updating(torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), fused=True))


def _updating(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def agreement() -> float:
    """Difference of the losses of the assembled and the hand-written llama."""
    shape = peers.SHAPES["S"]
    torch.manual_seed(0)
    model, hand = strawberry.build(peers.recipe("llama", shape)), Llama(shape)
    peers.take_weights(hand, model)
    ids = torch.randint(shape.vocabulary, (shape.batch, shape.length))
    with torch.no_grad():
        return float((model.loss(ids, ids).total - hand.loss(ids, ids)).abs())


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    shape = result["shape"]
    clock = ", CPU time" if shape["cpu_time"] else ""
    lines = [
        f"shape {shape['shape']}, {shape['dtype']}, {shape['threads']} threads{clock}, torch "
        f"{shape['torch']}; the peak is {result['peak_gflops']:.0f} GFLOP/s",
        f"hand-written and assembled llama differ by {result['hand_written_differs_by']:.1e}",
        f"{'':24}{'ms':>8}{'least':>8}{'tokens/s':>10}{'of peak':>9}{'MiB':>7}{'least':>7}   "
        f"speed over {shape['over']}, median (quartiles)",
    ]
    for name, row in result["contenders"].items():
        lines.append(
            f"{name:24}{row['milliseconds']:>8.1f}{row['least_milliseconds']:>8.1f}"
            f"{row['tokens_per_second']:>10,.0f}{row['share_of_peak']:>9.0%}"
            f"{row['peak_bytes'] / 2**20:>7.0f}{row['speed_of_least']:>7.2f}   "
            f"{shown(row['speed'])}"
        )
    for name, over in result["modularity"].items():
        lines.append(f"{name}: assembled over hand-written, time {shown(over)}")
    lines += [f"skipped {name}: {why}" for name, why in result["absent"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
