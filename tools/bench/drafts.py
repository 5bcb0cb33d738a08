"""Self-speculative greedy decoding of a trained recursive model against plain decoding.

    python tools/bench/drafts.py RUN [--tokens 128] [--threads 1] [--repeats 5] [--json]

Tokens a second with a cache, without one, and with drafts by each smaller number of recursion
steps. All give the same text. The acceptance of drafts depends on the model, so it must be trained;
"tokens a pass" is the number of tokens for each pass at full depth.
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
from turns import greedy, milliseconds, ratio, shown, take_turns

from strawberry.generation import load_run
from strawberry.generation.speculative import speculate
from strawberry.model.language_model import LanguageModel

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
        "with a cache": partial(greedy, model, count=options.tokens),
        "without a cache": partial(greedy, model, count=options.tokens, use_cache=False),
    }
    for steps in range(1, depth):
        decoders[f"drafts by {steps} of {depth}"] = partial(drafted, model, options.tokens, steps)

    def all_of(decode: Callable[[Tensor], list[int]]) -> list[list[int]]:
        return [decode(prompt) for prompt in prompts]

    runs = {name: partial(all_of, decode) for name, decode in decoders.items()}
    counted = {name: passes(model, depth, run) for name, run in runs.items()}
    seconds = take_turns(runs, options.repeats)
    total = options.tokens * len(prompts)
    return {
        "shape": {**vars(options), "run": str(options.run), "torch": torch.__version__},
        "same_text": all(texts == counted["with a cache"][0] for texts, _ in counted.values()),
        "decoders": {
            name: {
                "tokens_per_second": 1e3 * total / milliseconds(times),
                "speed": ratio(seconds["with a cache"], times),
                "tokens_per_pass": total / counted[name][1],
            }
            for name, times in seconds.items()
        },
    }


def drafted(model: LanguageModel, count: int, steps: int, prompt: Tensor) -> list[int]:
    """The same as `greedy`, with drafts."""
    return list(speculate(model, prompt, count, steps))


def passes(
    model: LanguageModel, depth: int, run: Callable[[], list[list[int]]]
) -> tuple[list[list[int]], int]:
    """The text of a run, and its number of passes at full depth."""
    depths: list[int] = []
    trunk = model.trunk

    def counting(*given: Any) -> Any:
        depths.append(max(recursion.steps for recursion in model.stack.outermost()))
        return trunk(*given)

    counted: Any = counting
    model.trunk = counted  # type: ignore[method-assign]
    try:
        texts = run()
    finally:
        del model.trunk
    return texts, depths.count(depth)


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
