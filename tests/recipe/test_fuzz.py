"""Random recipes: accepted, or refused with a place; never a traceback, never slow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strawberry.errors import Problem, RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.recipe.yaml import dump

RECIPES = Path(__file__).parents[2] / "recipes"
TEXTS = [file.read_text() for file in sorted(RECIPES.glob("*.yaml"))]
TEXTS.append((RECIPES / "seed.json").read_text())
MODEST = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WORDS = st.sampled_from(
    ["model", "stack", "attention", "ffn", "use", "mha", "aft_simple", "swiglu", "repeat", "recur",
     "sharing", "weights", "factorized", "n_embd", "vocab_size", "block_size", "norm", "rmsnorm",
     "optimizer", "muon", "rest", "train", "max_iters", "params", "extends", "seed", "auto", "none",
     "name", "requires", "trackers", "data", "tokenizer", "positional", "rope", "fuzz.yaml", "<<"]
)  # fmt: skip
LEAVES = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=30,
)


def check(data: bytes, plugins: Plugins, overrides: list[str] | None = None) -> None:
    """Load, and see that a refusal is in order."""
    for name in ("fuzz.yaml", "fuzz.json"):
        Path(name).write_bytes(data)
        started = time.process_time()
        problems: tuple[Problem, ...] = ()
        try:
            load_recipe(name, overrides or [], plugins=plugins)
        except RecipeError as error:
            problems = error.problems
            assert str(error).count("\n") + 1 == len(problems)  # noqa: PT017 (one a line)
        assert all(problem.location is not None for problem in problems)
        assert all(len(str(problem)) < 1000 for problem in problems)
        assert len(problems) <= 51
        assert time.process_time() - started < 3.0


@pytest.mark.faults(32)
@MODEST
@given(tree=TREES)
def test_structures(tree: Any, folder: Path, plugins: Plugins) -> None:
    """Trees of the words that recipes are made of."""
    check(dump(tree).encode("utf-8", "replace"), plugins)


@pytest.mark.faults(32)
@MODEST
@given(data=st.data())
def test_mutations(data: st.DataObject, folder: Path, plugins: Plugins) -> None:
    """Recipes that came along, with pieces cut out, doubled, or replaced."""
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        piece = data.draw(st.sampled_from(["", text[start:end] * 2]) | st.text(max_size=5) | WORDS)
        text = text[:start] + piece + text[end:]
    check(text.encode("utf-8", "replace"), plugins)


@pytest.mark.faults(32)
@MODEST
@given(content=st.binary(max_size=200) | st.text(":-[]{}&*!|>'\"%@`#,? \n\tab0", max_size=60))
def test_bytes(content: bytes | str, folder: Path, plugins: Plugins) -> None:
    """Any bytes, and texts of YAML's own marks."""
    check(content if isinstance(content, bytes) else content.encode(), plugins)


@pytest.mark.faults(32)
@MODEST
@given(overrides=st.lists(st.text(".=[]*0{},: \nabc", max_size=20) | WORDS, max_size=3))
def test_overrides(overrides: list[str], folder: Path, plugins: Plugins) -> None:
    """Any overrides."""
    check(TEXTS[0].encode(), plugins, overrides)


@pytest.mark.parametrize("path", ["model.stack.*.attention", "model.norm", "optimizer", "train"])
@pytest.mark.parametrize("value", ["{", "[]", "{}", "null", "3", "{use: }", "{use: [a]}", "'': 1"])
def test_values_in_every_place(path: str, value: str, folder: Path, plugins: Plugins) -> None:
    """Odd values where sections and components stand."""
    check(TEXTS[0].encode(), plugins, [f"{path}={value}"])
