"""Self-speculative greedy decoding of a trained recursive model against plain decoding.

    python tools/bench/drafts.py RUN [--tokens 128] [--threads 1] [--repeats 5] [--json]

Tokens a second with a cache, without one, and with drafts by each smaller number of recursion
steps. All give the same text. How often a draft is right depends on the model, so it must be a
trained one; "tokens a pass" is how many came of each pass at full depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import turns
from torch import Tensor
from turns import milliseconds, ratio, shown, take_turns

from strawberry.model.language_model import LanguageModel
from strawberry.train import Sampling, load_run, sample_ids
from strawberry.train.speculative import speculate

PROMPTS = ("def ", "import ", "class ", "    return ", '"""')


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = turns.options(__doc__, repeats=5)
    parser.add_argument("run", type=Path, help="a run folder of a recursive model")
    parser.add_argument("--tokens", type=int, default=128, help="how many after each prompt")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    turns.show(measure(options), table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    loaded = load_run(options.run, weights="float32")
    model, tokenizer = loaded.model, loaded.tokenizer()
    prompts = [torch.tensor([[tokenizer.eot, *tokenizer.encode(text)]]) for text in PROMPTS]
    depth = max(recursion.steps for recursion in model.stack.outermost())
    decoders: dict[str, Callable[[Tensor], list[int]]] = {
        "with a cache": partial(plainly, model, options.tokens, use_cache=True),
        "without a cache": partial(plainly, model, options.tokens, use_cache=False),
    }
    for steps in range(1, depth):
        decoders[f"drafts by {steps} of {depth}"] = partial(drafted, model, options.tokens, steps)
    texts = {name: [decode(prompt) for prompt in prompts] for name, decode in decoders.items()}
    seconds = take_turns(
        {
            name: partial(lambda decode: [decode(prompt) for prompt in prompts], decode)
            for name, decode in decoders.items()
        },
        options.repeats,
    )
    total = options.tokens * len(prompts)
    return {
        "shape": {**vars(options), "run": str(options.run), "torch": torch.__version__},
        "same_text": all(text == texts["with a cache"] for text in texts.values()),
        "decoders": {
            name: {
                "tokens_per_second": 1e3 * total / milliseconds(times),
                "speed": ratio(seconds["with a cache"], times),
                "tokens_per_pass": total / passes(model, depth, decoders[name], prompts),
            }
            for name, times in seconds.items()
        },
    }


def plainly(model: LanguageModel, count: int, prompt: Tensor, *, use_cache: bool) -> list[int]:
    """The most likely tokens, one at a time."""
    random = torch.Generator()
    ids = sample_ids(model, prompt, count, Sampling(0.0), random, use_cache=use_cache)
    return [int(token) for token in ids]


def drafted(model: LanguageModel, count: int, steps: int, prompt: Tensor) -> list[int]:
    """The same, with drafts."""
    return list(speculate(model, prompt, count, steps))


def passes(
    model: LanguageModel, depth: int, decode: Callable[[Tensor], list[int]], prompts: list[Tensor]
) -> int:
    """How many passes at full depth a decoder takes."""
    depths: list[int] = []
    trunk = model.trunk

    def counting(*given: Any) -> Any:
        depths.append(max(recursion.steps for recursion in model.stack.outermost()))
        return trunk(*given)

    counted: Any = counting
    model.trunk = counted  # type: ignore[method-assign]
    try:
        for prompt in prompts:
            decode(prompt)
    finally:
        del model.trunk
    return depths.count(depth)


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    shape = result["shape"]
    lines = [
        f"{shape['run']}: {shape['tokens']} tokens after each of {len(PROMPTS)} prompts, "
        f"{shape['threads']} threads, torch {shape['torch']}",
        f"same text: {'yes' if result['same_text'] else 'NO'}",
        f"{'':20}{'tokens/s':>10}{'a pass':>8}   speed over a plain cache, median (quartiles)",
    ]
    for name, row in result["decoders"].items():
        lines.append(
            f"{name:20}{row['tokens_per_second']:>10.1f}{row['tokens_per_pass']:>8.2f}"
            f"   {shown(row['speed'])}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
