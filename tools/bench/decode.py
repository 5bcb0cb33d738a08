"""Greedy decoding of our llama, gpt2 and air recipes against other libraries, and without a cache.

    python tools/bench/decode.py [--shape M|S] [--tokens 256] [--prompt 16] [--nanogpt PATH]
        [--only NAME...] [--threads 2] [--repeats 5] [--json]

One sequence, the most likely token each time. Each contender has a process of its own, and they
take turns within one run; ratios are over litgpt, or over the first contender without it. The
hand-written llama and ours have the same weights, and must give the same text in float32. `ours`
alone is llama.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import peers
import torch
import turns
from handwritten import Llama, Shape
from torch import Tensor
from turns import greedy, milliseconds, ratio, shown, take_turns
from workers import Contender, Imports, Maker, working

import strawberry
from strawberry.generation.packing import WeightFormat, pack_weights


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = turns.options(__doc__, repeats=5)
    parser.set_defaults(threads=2)
    turns.add_cpu_time(parser)
    parser.add_argument("--shape", choices=peers.SHAPES, default="M")
    parser.add_argument("--tokens", type=int, default=256, help="how many to generate")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of the prompt")
    parser.add_argument("--nanogpt", metavar="PATH", help="nanoGPT's folder or model.py")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="contenders that contain NAME")
    options = parser.parse_args()
    turns.show(measure(options), table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    shape = peers.SHAPES[options.shape]._replace(length=options.prompt + options.tokens)
    chosen = {
        name: (maker, False)
        for name, maker in contenders(options, shape).items()
        if not options.only or any(part in name for part in options.only)
    }
    with working(chosen, options.threads) as (workers, absent):
        seconds = take_turns(workers, options.repeats, told=options.cpu_time)
        text = {name: worker.result for name, worker in workers.items()}
    first = "litgpt" if "litgpt" in seconds else next(iter(seconds))
    ours = ("hand-written", "ours", "ours, float32 packed", "ours, without cache")
    same = [text[name] for name in ours if name in text]
    return {
        "shape": {**vars(options), "torch": torch.__version__, "over": first},
        "absent": absent,
        "same_text": all(found == same[0] for found in same),
        "contenders": {
            name: {
                "milliseconds_per_token": milliseconds(times) / options.tokens,
                "tokens_per_second": options.tokens / min(times),
                "speed": ratio(seconds[first], times),
                "speed_of_least": min(seconds[first]) / min(times),
            }
            for name, times in seconds.items()
        },
    }


def contenders(options: argparse.Namespace, shape: Shape) -> dict[str, Maker]:
    """The contenders, and how to create each."""
    sizes = (shape, options.prompt, options.tokens)
    found: dict[str, Maker] = {}
    if options.nanogpt:
        found["nanoGPT"] = partial(nanogpt, options.nanogpt, *sizes)
    for name in ("transformers", "x_transformers", "litgpt"):
        found[name] = partial(globals()[name], *sizes)
    found["hand-written"] = partial(hand, *sizes)
    found["ours"] = partial(ours, *sizes)
    for name in ("gpt2", "original_air"):
        found[f"ours: {name}"] = partial(ours, *sizes, recipe=name)
    for weights in get_args(WeightFormat):
        found[f"ours, {weights} packed"] = partial(ours, *sizes, weights=weights)
    found["ours, without cache"] = partial(ours, *sizes, use_cache=False)
    return found


def ours(
    shape: Shape,
    prompt: int,
    tokens: int,
    *,
    recipe: str = "llama",
    use_cache: bool = True,
    weights: WeightFormat | None = None,
) -> Contender:
    """A recipe of ours; with `weights` as `strawberry generate --weights` decodes it."""
    Imports.done()
    model = strawberry.build(peers.recipe(recipe, shape)).eval()
    if weights is not None:
        pack_weights(model, weights)

    def run() -> list[int]:
        return greedy(model, _prompt(shape, prompt), tokens, use_cache=use_cache)

    return _contender(run)


def hand(shape: Shape, prompt: int, tokens: int) -> Contender:
    """The llama of handwritten.py, with the weights of ours."""
    Imports.done()
    model = Llama(shape)
    peers.take_weights(model, strawberry.build(peers.recipe("llama", shape)))

    def run() -> list[int]:
        made: list[int] = model.greedy(_prompt(shape, prompt), tokens)[0].tolist()
        return made

    return _contender(run)


def transformers(shape: Shape, prompt: int, tokens: int) -> Contender:
    """`generate` of LlamaForCausalLM, which keeps a cache."""
    model: Any = peers.transformers(shape).eval()
    Imports.done()
    given = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}

    def run() -> list[int]:
        start = _prompt(shape, prompt)
        mask = torch.ones_like(start)
        return list(model.generate(start, attention_mask=mask, **given)[0, prompt:])

    return _contender(run)


def x_transformers(shape: Shape, prompt: int, tokens: int) -> Contender:
    """`generate` of x-transformers, which keeps keys and values."""
    from x_transformers import AutoregressiveWrapper

    model: Any = AutoregressiveWrapper(peers.x_transformers(shape)).eval()
    Imports.done()

    def run() -> list[int]:
        start = _prompt(shape, prompt)
        return list(model.generate(start, tokens, temperature=0.0, cache_kv=True)[0])

    return _contender(run)


def litgpt(shape: Shape, prompt: int, tokens: int) -> Contender:
    """The model of litgpt with its cache, in the plainest loop."""
    model: Any = peers.litgpt(shape).eval()
    Imports.done()
    model.set_kv_cache(batch_size=1)

    @torch.inference_mode()
    def run() -> list[int]:
        ids, place = _prompt(shape, prompt), torch.arange(prompt)
        made = []
        for _ in range(tokens):
            ids = model(ids, place)[:, -1:].argmax(-1)
            place = place[-1:] + 1
            made.append(int(ids))
        return made

    return _contender(run)


def nanogpt(path: str, shape: Shape, prompt: int, tokens: int) -> Contender:
    """`generate` of nanoGPT, which has no cache; top-1 makes it greedy."""
    Imports.done()
    model: Any = peers.nanogpt(path, shape).eval()

    def run() -> list[int]:
        return list(model.generate(_prompt(shape, prompt), tokens, top_k=1)[0, prompt:])

    return _contender(run)


def _prompt(shape: Shape, length: int) -> Tensor:
    return torch.arange(7, 7 + length)[None] % shape.vocabulary


def _contender(run: Callable[[], list[int]]) -> Contender:
    return Contender(run, result=[int(token) for token in run()])


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    shape = result["shape"]
    clock = ", CPU time" if shape["cpu_time"] else ""
    lines = [
        f"{shape['tokens']} tokens after {shape['prompt']}, shape {shape['shape']}, "
        f"{shape['threads']} threads{clock}, torch {shape['torch']}",
        f"same text, ours in float32 and by hand: {'yes' if result['same_text'] else 'NO'}",
        f"{'':24}{'ms/token':>10}{'tokens/s':>10}{'least':>7}   "
        f"speed over {shape['over']}, median (quartiles)",
    ]
    for name, row in result["contenders"].items():
        lines.append(
            f"{name:24}{row['milliseconds_per_token']:>10.2f}{row['tokens_per_second']:>10.1f}"
            f"{row['speed_of_least']:>7.2f}   {shown(row['speed'])}"
        )
    lines += [f"skipped {name}: {why}" for name, why in result["absent"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
