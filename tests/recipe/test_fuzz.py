"""Random recipes: built, or refused with a place; never a traceback, never slow."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from strawberry.errors import Problem, RecipeError
from strawberry.model.build import build
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.recipe.yaml import dump
from tests.plugin.fakes import hide_installed

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = [*sorted(file.name for file in RECIPES.glob("*.yaml")), "original.json"]
TEXTS = [(RECIPES / name).read_text() for name in NAMES]
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
MARKS = ":-[]{}&*!|>'\"%@`#,? \n\tab0"
PARTS = {
    "model.stack.*.attention": (
        "mha", "mla", "linear", "aft_full", "aft_local", "aft_conv", "aft_simple", "moe_attention",
        "expert_abundance", "none", "{use: mha, n_head: 3}", "{use: mha, window: 2, sink: true}",
    ),
    "model.stack.*.ffn": ("swiglu", "geglu", "mlp", "moe", "bilinear", "none"),
    "model.norm": ("rmsnorm", "layernorm", "dyt", "none"),
    "model.positional": ("rope", "alibi", "t5_bias", "learned", "sinusoidal", "none"),
    "model.weights": ("owned", "shared", "step_lora", "{use: factorized, rank: 3}", "retained"),
    "model.stack": ("[{recur: 3, attention: mha}]", "[{repeat: 2, ffn: mlp}]", "[]"),
    "model.residual": ("sum", "attention", "{placement: post}", "{placement: sandwich}"),
    "model.block": ("sequential", "parallel"),
    "train.document_mask": ("true", "false"),
    "optimizer": ("adamw", "muon", "lion", "[muon, adamw]"),
}  # fmt: skip
SENSIBLE = st.sampled_from([f"{path}={value}" for path, own in PARTS.items() for value in own])
SIZES = st.builds(
    "{}={}".format,
    st.sampled_from([f"model.{name}" for name in ("n_embd", "vocab_size", "block_size")]),
    st.integers(-1, 300) | st.integers(),
)
CROSSED = st.builds("{}={}".format, st.sampled_from([*PARTS]), WORDS | st.floats().map(str))
OVERRIDES = st.lists(st.text(".=[]*0{},: \nabc", max_size=20) | CROSSED, max_size=3) | st.lists(
    SENSIBLE | SIZES, min_size=1, max_size=3
)
STRATEGIES: dict[str, dict[str, Any]] = {
    "structures": {"tree": TREES},
    "mutations": {"data": st.data()},
    "bytes": {"content": st.binary(max_size=200) | st.text(MARKS, max_size=60)},
    "overrides": {"name": st.sampled_from(NAMES), "overrides": OVERRIDES},
}
"""What each of the tests below is given."""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """The built-in components, and the reader of the original project's configurations."""
    reader = RECIPES.parent / "plugins/strawberry-original/strawberry_original/plugin.py"
    with pytest.MonkeyPatch.context() as patch:
        hide_installed(patch)
        return Plugins.load(files=[reader])


@pytest.fixture(autouse=True)
def extended(folder: Path) -> None:
    """The recipes that others extend stand beside what is tried."""
    for file in RECIPES.glob("*.yaml"):
        shutil.copy(file, folder)


def check(data: bytes, plugins: Plugins, overrides: list[str] | None = None) -> None:
    """Look at it as a recipe of either kind."""
    for name in ("fuzz.yaml", "fuzz.json"):
        assert attempt(name, data, plugins, overrides).seconds < 3.0


class Attempt(NamedTuple):
    """CPU seconds that a recipe took, and whether a model was built of it."""

    seconds: float
    built: bool


def attempt(
    name: str, data: bytes, plugins: Plugins, overrides: list[str] | None = None
) -> Attempt:
    """Load and build a recipe, and see that a refusal is in order."""
    Path(name).write_bytes(data)
    started = time.process_time()
    problems: tuple[Problem, ...] = ()
    try:
        build(load_recipe(name, overrides or [], plugins=plugins), "meta")
    except RecipeError as error:
        problems = error.problems
        assert str(error).count("\n") + 1 == len(problems)  # noqa: PT017 (one a line)
    seconds = time.process_time() - started
    assert all(problem.location is not None for problem in problems)
    assert all(len(str(problem)) < 1000 for problem in problems)
    assert len(problems) <= 51
    return Attempt(seconds, not problems)


@pytest.mark.faults(32)
@MODEST
@given(**STRATEGIES["structures"])
def test_structures(tree: Any, folder: Path, plugins: Plugins) -> None:
    """Trees of the words that recipes are made of."""
    check(dump(tree).encode("utf-8", "replace"), plugins)


@pytest.mark.faults(32)
@MODEST
@given(**STRATEGIES["mutations"])
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
@given(**STRATEGIES["bytes"])
def test_bytes(content: bytes | str, folder: Path, plugins: Plugins) -> None:
    """Any bytes, and texts of YAML's own marks."""
    check(content if isinstance(content, bytes) else content.encode(), plugins)


@pytest.mark.faults(32)
@MODEST
@given(**STRATEGIES["overrides"])
def test_overrides(name: str, overrides: list[str], folder: Path, plugins: Plugins) -> None:
    """Any overrides, senseless ones and such as a person might try, of any recipe."""
    check((RECIPES / name).read_bytes(), plugins, overrides)


@pytest.mark.parametrize("path", ["model.stack.*.attention", "model.norm", "optimizer", "train"])
@pytest.mark.parametrize("value", ["{", "[]", "{}", "null", "3", "{use: }", "{use: [a]}", "'': 1"])
def test_values_in_every_place(path: str, value: str, folder: Path, plugins: Plugins) -> None:
    """Odd values where sections and components stand."""
    check(TEXTS[0].encode(), plugins, [f"{path}={value}"])
