"""Which temperature and top-p show a small model at its best: samples beside real text.

    python tools/bench/sampling.py RUN [--prompts 24] [--tokens 160] [--temperature 0.6,0.75,0.9]
        [--top-p 0.9,1] [--no-repeat 8] [--own-prompt] [--json]

RUN is a run folder. Prompts are the beginnings of pieces of its validation text, and each is
continued once with every setting. Real text is what follows there, at the same length. With
--own-prompt it is the prompt of the sample that a run ends with, continued with as many seeds, of
which 0 is that of a run; then there is no real text.

`valid`, of code: the share of a sample's lines that belong to the longest beginning, prompt
included, which Python's parser accepts. Of prose: the share of its words that training text has.
`brackets`, of code: the share of samples in which every closing bracket closes the last open one.
`whole`, of code: the share of those that also define a function and return from one.
`repeated` is the share of runs of four words that stood in the sample before, and `words` how many
different words a hundred words have. A setting is good whose samples are valid, and repeat no more
than real text does.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import turns

from strawberry.components.data.stdlib import Stdlib
from strawberry.data import open_dataset
from strawberry.data.opening import data_source
from strawberry.generation.load import load_run
from strawberry.generation.sampling import Sampling
from strawberry.generation.text import generate_batch
from strawberry.recipe import load_recipe

RUN_OF = 4
"""Words of what counts as a repetition."""
_STRING = re.compile(r"\"\"\".*?\"\"\"|\"[^\"\n]*\"|'[^'\n]*'|#[^\n]*", re.DOTALL)
"""Strings and comments, nearly: what a stranger's eye leaves out."""
_DEF, _RETURN = (re.compile(rf"^ +{word}\b", re.MULTILINE) for word in ("def", "return"))


def main() -> None:
    """Parse the arguments, sample, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--lines", type=int, default=12, help="lines of a prompt")
    parser.add_argument("--tokens", type=int, default=160, help="new tokens of a sample")
    parser.add_argument("--temperature", type=numbers, default=[0.6, 0.75, 0.9, 1.0])
    parser.add_argument("--top-p", type=numbers, default=[0.9, 1.0])
    parser.add_argument("--no-repeat", type=int, default=8, help="0 for none")
    parser.add_argument("--own-prompt", action="store_true", help="that of a run's own sample")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    turns.show(measure(options), table, options.json)


def numbers(text: str) -> list[float]:
    """Numbers between commas."""
    return [float(each) for each in text.split(",")]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain data."""
    loaded = load_run(options.run, weights="float32")
    recipe = load_recipe(options.run)
    dataset = open_dataset(recipe)
    train, held = (list(dataset.texts(split) or ()) for split in ("train", "val"))
    source = data_source(recipe)
    code = source.prompt == Stdlib.prompt
    valid = parsed if code else known(train)
    prompts, samples = [source.prompt], options.prompts
    real: list[str] = []
    if not options.own_prompt:
        (prompts, real), samples = begun(held, options.prompts, options.lines), 1
    asked = [prompt for prompt in prompts for _ in range(samples)]
    settings = [
        Sampling(temperature, None, top_p, options.no_repeat or None)
        for temperature, top_p in itertools.product(options.temperature, options.top_p)
    ]
    rows: list[dict[str, Any]] = []
    for sampling in settings:
        made = generate_batch(
            loaded,
            prompts,
            samples=samples,
            max_new_tokens=options.tokens,
            sampling=sampling,
        )
        texts = [text for each in made for text in each]
        rows.append({"temperature": sampling.temperature, "top_p": sampling.top_p,
                     **judged(asked, texts, valid, code)})  # fmt: skip
    length = round(fmean(len(text) for text in texts))
    if real:
        real = [text[:length] for text in real]
        rows.append({"temperature": "real text", "top_p": "",
                     **judged(prompts, real, valid, code)})  # fmt: skip
    return {"run": str(options.run), "code": code, "characters": length, "settings": rows}


def begun(documents: list[str], count: int, lines: int) -> tuple[list[str], list[str]]:
    """Prompts of so many lines, spread over the documents, and what really follows each."""
    pieces = ["".join(each) for text in documents for each in _paragraphs(text, 6 * lines)]
    chosen = pieces[:: max(1, len(pieces) // count)][:count]
    split = [text.splitlines(keepends=True) for text in chosen]
    return ["".join(each[:lines]) for each in split], ["".join(each[lines:]) for each in split]


def _paragraphs(text: str, lines: int) -> list[list[str]]:
    """Pieces of so many lines, each of which begins after an empty line."""
    kept = text.splitlines(keepends=True)
    starts = [0, *(n + 1 for n, line in enumerate(kept) if not line.strip())]
    starts = [n for n in starts if n + lines <= len(kept) and not kept[n].startswith((" ", "\t"))]
    return [kept[n : n + lines] for n in starts[:: max(1, len(starts) // 4)]]


def judged(
    prompts: list[str],
    texts: list[str],
    valid: Callable[[str, str], float],
    code: bool,
) -> dict[str, float]:
    """The means over samples."""
    pairs = list(zip(prompts, texts, strict=True))
    of_code = {"brackets": fitting, "whole": whole} if code else {}
    return {
        "valid": fmean(valid(prompt, text) for prompt, text in pairs),
        **{name: fmean(share(*pair) for pair in pairs) for name, share in of_code.items()},
        "repeated": fmean(repeated(text) for text in texts),
        "words": fmean(variety(text) for text in texts),
    }


def parsed(prompt: str, text: str) -> float:
    """The share of a sample's whole lines that Python's parser accepts, from the first on."""
    lines = text.splitlines(keepends=True)[:-1]
    for count in range(len(lines), 0, -1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(prompt + "".join(lines[:count]))
        except (SyntaxError, ValueError):
            continue
        return count / len(lines)
    return 0.0


def fitting(prompt: str, text: str) -> float:
    """Whether every closing bracket of a sample closes the last open one; strings aside."""
    opened: list[str] = []
    for each in re.findall(r"[(\[{}\])]", _STRING.sub("", prompt + text)):
        if each in "([{":
            opened.append(each)
        elif not opened or opened.pop() + each not in ("()", "[]", "{}"):
            return 0.0
    return 1.0


def whole(prompt: str, text: str) -> float:
    """Whether that holds, and a function is defined and something returned."""
    return fitting(prompt, text) * bool(_DEF.search(text) and _RETURN.search(text))


def known(train: list[str]) -> Callable[[str, str], float]:
    """The share of a sample's words that training text has."""
    vocabulary = {word for text in train for word in _words(text)}

    def share(_: str, text: str) -> float:
        words = _words(text)[1:-1]  # the first may have begun in the prompt
        return fmean(word in vocabulary for word in words) if words else 0.0

    return share


def repeated(text: str) -> float:
    """The share of runs of words that stood before."""
    words = _words(text)
    runs = list(zip(*(words[n:] for n in range(RUN_OF)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def variety(text: str) -> float:
    """Different words of the first hundred."""
    words = _words(text)[:100]
    return 100 * len(set(words)) / len(words) if words else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    kind = "code" if result["code"] else "prose"
    lines = [f"{result['run']}: {kind}, samples of {result['characters']} characters", "",
             "| temperature | top-p | valid | brackets | whole | repeated | words |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {row['temperature']} | {row['top_p']} | {row['valid']:.3f} "
        f"| {_number(row, 'brackets')} | {_number(row, 'whole')} "
        f"| {row['repeated']:.3f} | {row['words']:.1f} |"
        for row in result["settings"]
    ]
    return "\n".join(lines)


def _number(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f}" if name in row else ""


if __name__ == "__main__":
    main()
