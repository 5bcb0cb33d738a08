"""Plans: which cells there are, what is skipped and why, and how a file says the same."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.ablate.axes import full_path, parse_axis
from strawberry.ablate.cells import cells
from strawberry.ablate.plan import Range
from strawberry.ablate.planfile import is_plan, make_plan as read
from strawberry.ablate.preparing import prepare
from strawberry.ablate.seeds import held
from strawberry.ablate.trials import UNIMPORTANT, Trials
from strawberry.data.packed import PackedDataset
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.build import build
from strawberry.plugin import Plugins
from strawberry.recipe.seeds import seed_of
from tests.ablate.conftest import PlanMaker

ATTENTION, FFN = "model.stack.*.attention", "model.stack.*.ffn"


def names(plan: Any, plugins: Plugins) -> list[str]:
    return [cell.name for cell in cells(plan, plugins)[1]]


def test_a_grid_has_every_combination(make_plan: PlanMaker, plugins: Plugins) -> None:
    """In the order in which they are written; the first is the baseline."""
    plan = make_plan(vary={ATTENTION: ("mha", "mla"), FFN: ("swiglu", "geglu")})
    assert names(plan, plugins) == [
        "attention=mha ffn=swiglu", "attention=mha ffn=geglu",
        "attention=mla ffn=swiglu", "attention=mla ffn=geglu",
    ]  # fmt: skip


def test_one_at_a_time_is_against_the_recipe(make_plan: PlanMaker, plugins: Plugins) -> None:
    """What equals the recipe itself is no cell of its own, and says so."""
    plan = make_plan(vary={FFN: ("swiglu", "geglu"), "model.n_embd": (32,)}, mode="one_at_a_time")
    made = prepare(plan, plugins)
    assert [cell.name for cell in made.live] == ["recipe", "ffn=geglu", "n_embd=32"]
    assert {c.name: c.skipped for c in made.cells if c.skipped} == {
        "ffn=swiglu": "the same trial as recipe"
    }


@pytest.mark.parametrize(
    "path",
    [
        *(path for path in UNIMPORTANT if path not in ("requires", "scale", "trackers")),
        "train.max_iters",
    ],
)
def test_cells_that_are_one_trial_are_refused(
    make_plan: PlanMaker, plugins: Plugins, path: str
) -> None:
    """What doesn't enter a trial's key makes no second cell; a budget can make cells alike too."""
    values = {"name": ("a", "b"), "train.keep_best": (True, False), "train.device": ("cpu", "auto"),
              "train.keep_memory": (True, False),
              "train.checkpoint_steps": ([3], [4])}.get(path, (3, 4))  # fmt: skip
    plan = make_plan(vary={path: values}, tokens=320 if path == "train.max_iters" else None)
    word = path.rsplit(".", 1)[-1]
    with pytest.raises(
        StrawberryError, match=f"there is nothing to compare: the same trial as {word}="
    ):
        prepare(plan, plugins)


def test_of_cells_that_are_one_trial_the_first_stays(
    make_plan: PlanMaker, plugins: Plugins
) -> None:
    """Beside an axis that decides something the others say whose trial they are."""
    made = prepare(make_plan(vary={FFN: ("swiglu", "geglu"), "train.threads": (1, 2)}), plugins)
    assert [cell.name for cell in made.live] == ["ffn=swiglu threads=1", "ffn=geglu threads=1"]
    told = "the same trial as ffn=geglu threads=1: train.threads has no effect on a trial"
    assert made.cells[3].skipped == told


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"metric": "val_los"}, "'val_los'; available: bits_per_byte, val_loss; did you mean"),
        ({"metric": "val_accuracy"}, "doesn't measure 'val_accuracy'"),
        ({"tune": {"train.threads": (1, 2)}}, "train.threads: has no effect on a trial"),
        ({"tune": {FFN: ("glu", "reglu")}}, "is both varied and tuned"),
        ({"tune": {"train.min_lr": (1e-4, 1.0)}}, "train.min_lr: 1 exceeds the peak"),
        ({"tune": {"train.learning_rate": Range(1e-5, 1e-3)}, "overrides": ("train.min_lr=1e-4",)},
         "min_lr: 0.0001 exceeds the peak"),
    ],
)  # fmt: skip
def test_what_would_fail_after_all_trials_is_refused_before(
    make_plan: PlanMaker, plugins: Plugins, plan: dict[str, Any], message: str
) -> None:
    """A metric that nothing measures, values that tuning can't try."""
    with pytest.raises(StrawberryError, match=message):
        prepare(make_plan(vary={FFN: ("swiglu", "geglu")}, **plan), plugins)


def test_metrics_of_the_data_and_of_components_are_known(
    make_plan: PlanMaker, plugins: Plugins
) -> None:
    """Bits per byte of text for every cell; a router's depth for the cells that have one."""
    assert len(prepare(make_plan(vary={FFN: ("swiglu", "geglu")}, metric="bits_per_byte"),
                       plugins).live) == 2  # fmt: skip
    recur = {"recur": 2, "router": "token_choice", "attention": {"use": "mha", "n_head": 2}}
    cells = {"routed": {"model.stack": [recur]}, "plain": {"train.grad_clip": 0.5}}
    made = prepare(make_plan(cells=cells, metric="val_mean_depth", overrides=(
        f"model.stack={json.dumps([recur])}",)), plugins)  # fmt: skip
    assert [cell.name for cell in made.live] == ["recipe", "plain"]


def test_paired_lists(make_plan: PlanMaker, plugins: Plugins) -> None:
    """The first values together, then the second; unequal lists are refused."""
    vary = {"model.n_embd": (16, 32), "train.learning_rate": (0.01, 0.003)}
    plan = make_plan(vary=vary, mode="paired")
    assert names(plan, plugins) == [
        "n_embd=16 learning_rate=0.01", "n_embd=32 learning_rate=0.003",
    ]  # fmt: skip
    with pytest.raises(StrawberryError, match="equal lengths"):
        names(make_plan(vary={**vary, FFN: ("swiglu",)}, mode="paired"), plugins)


def test_leave_one_out_takes_each_part_away(make_plan: PlanMaker, plugins: Plugins) -> None:
    """Attention, FFN, norm and positions of this recipe."""
    _, found = cells(make_plan(mode="leave_one_out"), plugins)
    assert [cell.name for cell in found] == [
        "recipe", "without attention", "without ffn", "without norm", "without positional",
    ]  # fmt: skip
    assert all(cell.recipe is not None for cell in found)


def test_leave_one_out_of_a_recursion(plugins: Plugins, recipe_file: Path) -> None:
    """Its steps and its router can go too."""
    text = yaml.safe_load(recipe_file.read_text())
    text["model"]["stack"] = [
        {"recur": 2, "router": "token_choice", "stack": text["model"]["stack"]}
    ]
    recipe_file.write_text(yaml.safe_dump(text))
    found = names(read(recipe_file, {"mode": "leave_one_out"}), plugins)
    assert {"without router", "without recur"} <= set(found)


def test_random_draws_are_spread_and_repeatable(make_plan: PlanMaker, plugins: Plugins) -> None:
    """Eight points of a range fall into its eight parts, and are the same again."""
    plan = make_plan(vary={"train.learning_rate": Range(1e-4, 1e-1)}, mode="random", samples=8)
    values = [c.patch["train.learning_rate"] for c in cells(plan, plugins)[1][1:]]
    parts = [int(8 * (math.log10(value) + 4) / 3) for value in values]
    assert sorted(parts) == list(range(8))
    assert values == [c.patch["train.learning_rate"] for c in cells(plan, plugins)[1][1:]]


def test_all_is_the_registry(make_plan: PlanMaker, plugins: Plugins) -> None:
    """Every FFN of every plugin; what can't be built is there, and says why."""
    wide = {"use": "swiglu", "n_ffn": 96}
    _, found = cells(make_plan(vary={FFN: ("swiglu", "all", wide)}), plugins)
    assert len(found) == len(list(plugins.registry.entries("ffn"))) + 1


def test_what_cannot_be_built_is_skipped_by_name(make_plan: PlanMaker, plugins: Plugins) -> None:
    """With the first line of what the recipe's own rules say."""
    _, found = cells(make_plan(vary={FFN: ("swiglu", "nonsense")}), plugins)
    assert found[1].recipe is None
    assert "unknown ffn 'nonsense'" in found[1].skipped


def test_leaking_cells_can_be_left_out(make_plan: PlanMaker, plugins: Plugins) -> None:
    """With `causal` a mixer that sees later tokens is skipped, with the reason; else warned of."""
    vary = {ATTENTION: ("mha", "retention/retained_2360c08")}
    warned = prepare(make_plan(vary=vary), plugins)
    assert len(warned.live) == 2
    assert "not causal" in warned.warnings["attention=retention/retained_2360c08"][0]
    kept = prepare(make_plan(vary=vary, causal=True), plugins)
    assert [cell.name for cell in kept.live] == ["attention=mha"]
    assert "not causal" in kept.cells[1].skipped
    with pytest.raises(StrawberryError, match="the baseline sees later tokens"):
        prepare(make_plan(vary={ATTENTION: vary[ATTENTION][::-1]}, causal=True), plugins)


def test_positions_that_would_be_ignored_are_left_out(
    make_plan: PlanMaker, plugins: Plugins
) -> None:
    """AFT can't rotate: its cell goes without, and its patch says so; not where they vary."""
    _, found = cells(make_plan(vary={ATTENTION: ("mha", "aft_simple")}), plugins)
    assert found[1].patch["model.positional"] == "none"
    assert "model.positional" not in found[0].patch
    vary = {ATTENTION: ("mha", "aft_simple"), "model.positional": ("rope",)}
    assert "rope" in cells(make_plan(vary=vary), plugins)[1][1].skipped


def test_a_baseline_that_cannot_be_built_is_an_error(
    make_plan: PlanMaker, plugins: Plugins
) -> None:
    """There is nothing to compare with."""
    with pytest.raises(StrawberryError, match=r"can't build the baseline: .*nonsense"):
        cells(make_plan(vary={FFN: ("nonsense", "swiglu")}), plugins)


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("ffn=swiglu,moe", FFN, ("swiglu", "moe")),
        ("attention={use: mha, n_head: 2},mla", ATTENTION, ({"use": "mha", "n_head": 2}, "mla")),
        ("n_embd=16,32", "model.n_embd", (16, 32)),
        ("learning_rate=1e-4..1e-1", "train.learning_rate", Range(1e-4, 1e-1)),
        ("ffn.n_ffn=8..64", "model.stack.*.ffn.n_ffn", Range(8, 64)),
        ("train.compile=true,auto", "train.compile", (True, "auto")),
    ],
)
def test_axes(text: str, path: str, values: Any) -> None:
    """Values are YAML; a short name is spelt out; two dots are a range."""
    assert parse_axis(text) == (path, values)


@pytest.mark.parametrize("text", ["ffn", "=a", "ffn=", "n_embd=5..2", "ffn=a..b"])
def test_axes_that_are_none(text: str) -> None:
    """Each is refused in a line."""
    with pytest.raises((StrawberryError, RecipeError)):
        parse_axis(text)


def test_a_plan_s_file_says_the_same(recipe_file: Path, plugins: Plugins) -> None:
    """With options of the command line over it."""
    path = recipe_file.with_name("plan.yaml")
    content = {
        "ablate": recipe_file.name, "set": {"train.max_iters": 4}, "seeds": 5,
        "vary": {"ffn": ["swiglu", "geglu"]}, "cells": {"wide": {"n_embd": 32}},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    assert is_plan(path)
    assert not is_plan(recipe_file)
    plan = read(path, {"seeds": 2, "mode": None})
    base, found = cells(plan, plugins)
    assert base.train.max_iters == 4
    assert plan.seeds == 2
    assert [cell.name for cell in found] == ["ffn=swiglu", "ffn=geglu", "wide"]
    assert found[2].patch == {"model.n_embd": 32}


def test_short_paths() -> None:
    """Parts of blocks, of the model, fields of both sections; anything else is a path already."""
    assert full_path("ffn") == FFN
    assert full_path("norm") == "model.norm"
    assert full_path("max_iters") == "train.max_iters"
    assert full_path("optimizer.lr") == "optimizer.lr"


def test_seeds_vary_some_parts_alone(recipe_file: Path, plugins: Plugins) -> None:
    """What is not named is held at the recipe's seed; one that is fixed can't vary."""
    vary = {FFN: ("swiglu", "geglu")}
    plan = read(recipe_file, {"vary": vary, "vary_seed": "data"})
    base = prepare(plan, plugins).base
    assert held(plan.vary_seed, base) == {"train.init_seed": 1, "train.dropout_seed": 1}
    assert held(read(recipe_file, {"vary": vary}).vary_seed, base) == {}

    fixed = read(recipe_file, {"vary": vary, "overrides": ("train.init_seed=3",)})
    with pytest.raises(StrawberryError, match="leave it out of vary_seed"):
        prepare(fixed, plugins)


NOISY = {"model.stack[0].ffn": {"use": "moe", "noisy": True}}
DROPS = {"model.dropout": 0.1}


@pytest.mark.parametrize(
    ("varied", "changes", "fixed", "where"),
    [
        ("dropout", {}, False, r"\.yaml:\d+:\d+: model\.dropout: is 0, .* draws no random numbers"),
        ("dropout", DROPS, False, None),
        ("dropout", NOISY, False, None),
        ("data", {}, False, None),
        ("data", DROPS, True, r"\.yaml:\d+:\d+: data: has the same training rows for every seed"),
        ("data,dropout", {}, True, "model.dropout: is 0"),
        ("data,dropout", DROPS, True, None),
        ("init", {}, True, None),
    ],
)
def test_seeds_that_change_nothing_are_refused(
    recipe_file: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch,
    varied: str, changes: dict[str, Any], fixed: bool, where: str | None,
) -> None:  # fmt: skip
    """All trials of a cell would be one run: no dropout and no noise, rows that no seed orders."""
    original = PackedDataset.rows
    if fixed:
        monkeypatch.setattr(
            PackedDataset, "rows", lambda *given, **named: original(*given, **{**named, "seed": 0})
        )
    settings = tuple(f"{path}={json.dumps(value)}" for path, value in changes.items())
    vary = {"train.learning_rate": (1e-2, 1e-3)}
    plan = read(recipe_file, {"vary": vary, "vary_seed": varied, "overrides": settings})
    if where is None:
        assert len(prepare(plan, plugins).live) == 2
    else:
        with pytest.raises(RecipeError, match=f"(?s){where}.*; vary_seed: all seeds would be"):
            prepare(plan, plugins)


def test_trials_of_data_alone_have_equal_weights(
    recipe_file: Path, plugins: Plugins, tmp_path: Path
) -> None:
    """Two seeds that vary data: other keys, other rows, and weights that agree bit for bit."""
    plan = read(recipe_file, {"vary": {FFN: ("swiglu", "geglu")}, "vary_seed": "data"})
    base = prepare(plan, plugins).base
    values = held(plan.vary_seed, base)
    one, two = (Trials(tmp_path).make("a", base, seed, values=values) for seed in (1, 2))

    assert one.key != two.key
    assert [seed_of(trial.recipe, "data") for trial in (one, two)] == [1, 2]
    pairs = zip(build(one.recipe).parameters(), build(two.recipe).parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)
