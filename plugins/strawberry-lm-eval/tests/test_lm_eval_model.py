"""Answers to the harness's requests are those of slow loops, for any recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from lm_eval_runs import ARCHITECTURES, LENGTH, log_probabilities, make_run
from strawberry_lm_eval import StrawberryLM
from strawberry_lm_eval.windows import windows

import strawberry
from strawberry.errors import StrawberryError
from strawberry.generation import load_run
from strawberry.plugin import Plugins

PAIRS = [("berry", " is red"), ("", "blue"), ("a berry ", "is"), ("x" * 40, "yes or no"),
         ("berry", " is rex"), ("no", "z" * 70)]  # fmt: skip


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    """Requests of the harness."""
    return [Instance(kind, {}, args, n) for n, args in enumerate(arguments)]


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("llama", "air_full") else pytest.param(name, marks=pytest.mark.slow)
        for name in ARCHITECTURES
    ],
)
def test_log_probabilities_are_those_of_a_loop(name: str, tmp_path: Path, plugins: Plugins) -> None:
    """In batches, of any architecture: one pass in float64 for each token gives the same."""
    run = load_run(make_run(tmp_path, plugins, name), device="cpu", plugins=plugins)
    answers = StrawberryLM(run, batch_size=4).loglikelihood(requests("loglikelihood", *PAIRS[:3]))
    eot = run.tokenizer().eot
    for (context, continuation), (nats, _) in zip(PAIRS, answers, strict=False):
        spaces = context[len(context.rstrip()) :]  # the harness moves them
        after = list((spaces + continuation).encode())
        before = list(context.rstrip().encode()) or [eot]
        expected = math.fsum(log_probabilities(run, before + after)[-len(after) :])
        assert nats == pytest.approx(expected, abs=1e-3)


def test_long_texts_are_cut_as_the_harness_cuts_them(llama: Path, plugins: Plugins) -> None:
    """A context is cut at its beginning, and a continuation is scored whole, a window at a time."""
    run = load_run(llama, device="cpu", plugins=plugins)
    lm = StrawberryLM(run, batch_size=3)
    (cut, _), _, (longer, _) = lm.loglikelihood(requests("loglikelihood", *PAIRS[3:]))
    ids = [*b"x" * 40, *b"yes or no"][-LENGTH - 1 :]
    assert cut == pytest.approx(math.fsum(log_probabilities(run, ids)[-9:]), abs=1e-3)
    parts = [log_probabilities(run, [*b"no", *b"z" * 70][a:b])[-n:]
             for a, b, n in ((1, 34, 32), (33, 66, 32), (39, 72, 6))]  # fmt: skip
    assert longer == pytest.approx(math.fsum(map(math.fsum, parts)), abs=1e-3)


@pytest.mark.parametrize("size", [1, 5, 32, 33, 64, 71])
def test_windows_are_those_of_the_harness(size: int) -> None:
    """Whole texts are divided as the harness's own function divides them."""
    ids = list(range(size))
    theirs = [
        make_disjoint_window(pair)
        for pair in get_rolling_token_windows(ids, prefix_token=-1, max_seq_len=32, context_len=1)
    ]
    ours = [(list(w.ids[: -w.scored]), list(w.ids[-w.scored :])) for w in windows([-1], ids, 32)]
    assert ours == theirs


def test_greedy_answers_and_shared_passes(llama: Path, plugins: Plugins) -> None:
    """Two continuations that differ in their last token take one pass; the likelier is greedy."""
    run = load_run(llama, device="cpu", plugins=plugins)
    lm, passes = StrawberryLM(run), []
    inner = lm._logits
    lm._logits = lambda ids: passes.append(ids.shape) or inner(ids)  # type: ignore[func-returns-value]
    best = strawberry.generate(run, "b", max_new_tokens=1, temperature=0)
    ids = [*b"b"]
    one = lm._loglikelihood_tokens([(None, ids, [n]) for n in range(256)])
    assert passes == [(1, 1)]
    assert sum(greedy for _, greedy in one) <= 1
    assert math.fsum(math.exp(nats) for nats, _ in one) == pytest.approx(1, abs=0.2)
    assert isinstance(best, str)


@pytest.mark.parametrize("name", ["llama", pytest.param("air_full", marks=pytest.mark.slow)])
def test_text_is_generated_until_a_stop(name: str, tmp_path: Path, plugins: Plugins) -> None:
    """In a batch of contexts of different lengths, each text is the one that it has alone."""
    run = load_run(make_run(tmp_path, plugins, name), device="cpu", plugins=plugins)
    settings = {"until": ["\x00"], "max_gen_toks": 6}
    asked = [("berry", settings), ("a", settings), ("y" * 50, settings)]
    together = StrawberryLM(run, batch_size=3).generate_until(requests("generate_until", *asked))
    alone = StrawberryLM(run, batch_size=1).generate_until(requests("generate_until", *asked))
    assert together == alone
    whole = together[0]
    stop = {"until": [whole[2:4]], "max_gen_toks": 6}
    (cut,) = StrawberryLM(run).generate_until(requests("generate_until", ("berry", stop)))
    assert cut == whole[: whole.index(whole[2:4])]


def test_a_depth_changes_the_answers(tmp_path: Path, plugins: Plugins) -> None:
    """`steps` runs a recursive model deeper or less deep; one without recursion refuses it."""
    folder = make_run(tmp_path, plugins, "air_full")
    asked = requests("loglikelihood", PAIRS[0])
    one, two = (StrawberryLM(folder, steps=n, device="cpu").loglikelihood(asked) for n in (1, 2))
    assert one != two


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path, plugins: Plugins) -> None:
    """Scores of a model that sees the answers would be worth nothing."""
    moe = "model.stack.*.ffn={use: moe, routing: expert}"
    folder = make_run(tmp_path, plugins, "llama", moe)
    with pytest.raises(StrawberryError, match="not causal"):
        StrawberryLM(folder, device="cpu")
