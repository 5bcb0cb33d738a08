"""Time and memory of the attention-free mixers, against torch's fused attention.

    python tools/bench/aft.py [--lengths 256 1024 4096] [--width 256] [--threads 1] [--json]

The mixing of tokens alone is compared, without projections, forward and backward, at one shape: the
sums of each AFT form over `--width` channels, and causal scaled dot-product attention of as many
channels in heads of 64. The forms alternate within one run; ratios are medians over turns. Memory
is what autograd saves for the backward pass. Keys of +-90 are tried first: every result must be
finite.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import turns
from torch import Tensor
from torch.nn import functional as F
from turns import milliseconds, ratio, shown, take_turns

from strawberry.components.attention.aft_band import band_mean
from strawberry.components.attention.aft_full import _PairMean
from strawberry.components.attention.aft_simple import running_mean

WINDOW = 32
HEAD = 64


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = turns.options(__doc__, repeats=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "shape": {**vars(options), "torch": torch.__version__},
        "lengths": {length: measure(options, length) for length in options.lengths},
    }
    turns.show(result, table, options.json)


def measure(options: argparse.Namespace, length: int) -> dict[str, Any]:
    """Time over fused attention and kept bytes of each form at one length."""
    torch.manual_seed(0)
    shape = (options.batch, length, options.width)
    q, k, v = (torch.randn(shape, device=options.device).requires_grad_() for _ in range(3))
    tables = {
        "aft_full": torch.randn(length, length, device=options.device) * 0.01,
        "aft_local": torch.randn(WINDOW, length, 1, device=options.device) * 0.01,
        "aft_conv": torch.randn(WINDOW, 1, options.width, device=options.device) * 0.01,
    }
    w = {name: tensor.requires_grad_() for name, tensor in tables.items()}
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "sdpa": lambda k: attention(q, k, v),
        "aft_simple": lambda k: running_mean(k, v),
        "aft_local": lambda k: band_mean(k, v, w["aft_local"], None, 0.0),
        "aft_conv": lambda k: band_mean(k, v, w["aft_conv"], None, 0.0),
        "aft_full": lambda k: _PairMean.apply(k, v, w["aft_full"], None, 0.0),  # type: ignore[no-untyped-call]
    }
    loud = (torch.randn(shape, device=options.device).sign() * 90).requires_grad_()
    grad = torch.randn(shape, device=options.device)
    finite = {}
    for name, form in forms.items():
        if name != "sdpa":
            y = form(loud)
            made = torch.autograd.grad(y, [loud, v, *([w[name]] if name in w else [])], grad)
            finite[name] = all(bool(tensor.isfinite().all()) for tensor in (y, *made))
    runs = {name: partial(step, form, k, grad) for name, form in forms.items()}
    seconds = take_turns(runs, options.repeats, options.device)
    return {
        "milliseconds": {name: milliseconds(times) for name, times in seconds.items()},
        "over_sdpa": {name: ratio(times, seconds["sdpa"]) for name, times in seconds.items()},
        "kept_bytes": {name: kept(form, k, [*w.values()]) for name, form in forms.items()},
        "finite_at_90": finite,
    }


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention in heads of 64 channels: (B, T, N)."""
    B, T, N = q.shape
    q, k, v = (x.view(B, T, N // HEAD, HEAD).transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).reshape(B, T, N)


def step(form: Callable[[Tensor], Tensor], k: Tensor, grad: Tensor) -> None:
    """Forward and backward."""
    torch.autograd.backward(form(k), grad)


def kept(form: Callable[[Tensor], Tensor], k: Tensor, tables: list[Tensor]) -> int:
    """Bytes that autograd keeps between forward and backward, without the mixer's own tables."""
    storages: dict[int, int] = {}
    own = {table.untyped_storage().data_ptr() for table in tables}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = form(k)
    total = sum(storages.values())
    del y
    return total


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    shape = result["shape"]
    lines = [
        f"{shape['batch']} x T tokens of {shape['width']} channels, window {WINDOW}; "
        f"{shape['device']}, float32, {shape['threads']} threads, torch {shape['torch']}"
    ]
    for length, found in result["lengths"].items():
        lines.append(f"T = {length}{'ms':>18}{'kept MiB':>12}   time over sdpa (quartiles)")
        for name, time in found["milliseconds"].items():
            mebibytes = found["kept_bytes"][name] / 2**20
            finite = "" if found["finite_at_90"].get(name, True) else "  NOT FINITE at keys of +-90"
            over = shown(found["over_sdpa"][name])
            lines.append(f"  {name:12}{time:>12.2f}{mebibytes:>12.2f}   {over}{finite}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
