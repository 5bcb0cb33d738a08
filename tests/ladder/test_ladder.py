"""Ladders from a plan to a report, over trials that write results instead of training."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from strawberry.cli.app import run as command
from strawberry.errors import RecipeError, StrawberryError
from strawberry.ladder.collapse import Shape, badly_tuned
from strawberry.ladder.plan import read_ladder
from strawberry.ladder.report import answers, write_report
from strawberry.ladder.results import LOUD, results_of
from strawberry.ladder.rungs import make_rungs
from strawberry.ladder.scale import grow, without_embeddings
from strawberry.model.build import build
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.recipe.growth import Growth, grown, rule
from tests.ladder.scripted import Made, climb, law, plan_of


def test_architectures_agree_on_a_rung(recipe_file: Path, plugins: Plugins) -> None:
    """Their FLOPs are made equal within 1 %, if it isn't said otherwise."""
    attention = ({"use": "mha", "n_head": 2}, "aft_simple")
    plan = plan_of(recipe_file, plugins, rungs=2, vary={"model.stack.*.attention": attention})
    assert plan.plan.match == "flops"
    for rung in make_rungs(plan, plugins):
        first, second = rung.rows()
        assert second["training_flops"] == pytest.approx(first["training_flops"], rel=0.01)
        assert second["resized"]


def test_rungs_grow(made: Made) -> None:
    """Each has about twice the parameters, as many tokens each, and a rate by the rule."""
    _, rungs = made
    sizes = [rung.rows()[0]["without_embeddings"] for rung in rungs]
    for number, size in enumerate(sizes):
        assert size == pytest.approx(sizes[0] * 2**number, rel=0.25)
    for rung in rungs:
        first, second = rung.rows()
        assert first["tokens"] == second["tokens"]
        assert first["tokens"] == pytest.approx(2 * first["without_embeddings"], rel=0.05)
    rates = [rung.rows()[0]["learning_rate"] for rung in rungs]
    assert rates[3] == pytest.approx(rates[0] * (sizes[3] / sizes[0]) ** -0.25, rel=1e-3)
    assert [rung.growth.width for rung in rungs] == sorted(rung.growth.width for rung in rungs)
    train = [rung.prepared.live[0].recipe.train for rung in rungs]  # type: ignore[union-attr]
    assert all(t.warmup_iters == pytest.approx(t.max_iters / 3, abs=1) for t in train)


def test_small_steps_keep_the_aspect(plugins: Plugins) -> None:
    """Where whole heads are coarse, no step of depth keeps the rungs above from growing wider."""
    block = "{repeat: 4, attention: {use: mha, n_head: 2}, ffn: {use: swiglu, n_ffn: 88}}"
    recipe = load_recipe(
        Path("recipes/findings/text.yaml"),
        ["model.n_embd=32", f"model.stack=[{block}]"],
        plugins=plugins,
    )
    have = without_embeddings(build(recipe, "meta"))
    growths = [Growth(1.0, 1.0, have)]
    for number in range(1, 5):
        growths.append(grow(recipe, have * 1.4**number, growths[-1].parameters))
    assert [growth.width for growth in growths] == [1.0, 1.0, 1.5, 1.5, 1.5]
    assert all(2 / 3 <= growth.depth / growth.width <= 1.25 for growth in growths)


def test_a_held_out_rung_is_predicted_first(made: Made, tmp_path: Path) -> None:
    """The prediction stands in the record before the rung has a run, and is judged afterwards."""
    rungs, out = made[1], tmp_path / "out"
    plan = replace(made[0], how=replace(made[0].how, hold_out=1))
    top = rungs[-1].prepared.live[0].recipe
    assert top is not None
    seen: list[bool] = []

    def loss(recipe: Mapping[str, Any]) -> float:
        if recipe["train"]["max_iters"] == top.train.max_iters:
            content = json.loads((out / "ladder.json").read_text())
            seen.append(content["prediction"] is not None)
        return law(rungs)(recipe)

    results = results_of(climb(plan, rungs, out, loss))
    assert seen == [True] * 4
    assert [row["architecture"] for row in results.held_out] == [r["architecture"] for r in
                                                                rungs[-1].rows()]  # fmt: skip
    for row in results.held_out:
        assert abs(row["error"]) < 0.02
        assert row["held"]
    content = results.to_json()
    said = answers(content)
    assert said[0].startswith("Held out: rung 4 of ffn=swiglu")
    assert "the interval holds" in said[0]
    written = {file.name for file in write_report(results, content)}
    assert written == {"report.html", "report.md", "runs.csv"}
    assert command(["ladder", "fit", str(out / "runs.csv"), "--json"]) == 0


def test_what_was_not_held_out_is_said(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Report, Markdown and page begin with it; trials that are done aren't run again."""
    climb(*made, tmp_path / "out")
    again = climb(*made, tmp_path / "out", lambda recipe: pytest.fail("trained again"))
    results = results_of(again)
    assert answers(results.to_json())[0] == LOUD
    assert command(["report", str(tmp_path / "out")]) == 0
    assert LOUD[:30] in capsys.readouterr().out
    for name in ("report.md", "report.html"):
        assert LOUD[:30] in (tmp_path / "out" / name).read_text()
    gap = results.analysis.gaps[0]
    assert gap.pairs == 8
    assert gap.better(gap.highest) == "ffn=geglu"


def test_failures_are_said(made: Made, tmp_path: Path) -> None:
    """A trial that diverged is in the warnings; the rest is fitted."""

    def loss(recipe: Mapping[str, Any]) -> float | None:
        return (
            None
            if recipe["seed"] == 2 and recipe["model"]["n_embd"] == 16
            else law(made[1])(recipe)
        )

    results = results_of(climb(*made, tmp_path / "out", loss))
    assert any("rung 1: ffn=swiglu" in line and "diverged" in line for line in results.warnings)
    assert len(results.analysis.runs) < 16


def test_tuned_rates_carry_over(recipe_file: Path, plugins: Plugins, tmp_path: Path) -> None:
    """The best rate of the lowest rung goes up by the rule; no other is tried there."""
    plan = plan_of(recipe_file, plugins, tune={"train.learning_rate": (0.01, 0.04)}, rungs=3)
    rungs = make_rungs(plan, plugins)
    tried: dict[int, set[float]] = {}

    def loss(recipe: Mapping[str, Any]) -> float:
        train = recipe["train"]
        tried.setdefault(train["max_iters"], set()).add(train["learning_rate"])
        return law(rungs)(recipe) * (0.9 if train["learning_rate"] == 0.04 else 1.0)

    climb(plan, rungs, tmp_path / "out", loss)
    steps = sorted(tried)
    assert tried[steps[0]] == {0.01, 0.04}
    ratio = (rungs[2].growth.parameters / rungs[0].growth.parameters) ** -0.25
    assert list(tried[steps[2]]) == [pytest.approx(0.04 * ratio, rel=1e-3)]


def test_a_recipe_says_how_it_grows(recipe_file: Path, plugins: Plugins) -> None:
    """`scale:` names what grows and how fast; without it all grows alike."""
    recipe = load_recipe(recipe_file, plugins=plugins)
    assert rule(recipe)["model.stack[0].attention.n_head"] == 1
    wide = load_recipe(recipe_file, ["scale={model.n_embd: 1, 'model.stack[0].repeat': 0.5}"],
                       plugins=plugins)  # fmt: skip
    have = without_embeddings(build(wide, "meta"))
    changed = grown(wide, grow(wide, have * 8))
    assert set(changed) == {"model.n_embd", "model.stack[0].repeat"}
    assert changed["model.n_embd"] > 32
    assert grown(wide, Growth(2.0, 4.0, 0))["model.stack[0].repeat"] == 4
    nothing = load_recipe(recipe_file, ["scale={'model.stack[0].router': 1}"], plugins=plugins)
    with pytest.raises(StrawberryError, match=r"scale.model.stack\[0\].router: there is no number"):
        rule(nothing)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"rungs": 1}, "2:8: rungs: "),
        ({"ablate": "small.yaml"}, "`ablate:` is for `strawberry ablate`"),
        ({"mode": "random"}, "a ladder has no 'mode'"),
        ({"hold_out": 3}, "1 rungs are left to fit"),
        ({"factr": 2}, "a plan has no 'factr'"),
        ({"vary": {"atention": ["mha"]}}, "has no 'atention'"),
        ({"tokens": 5, "flops": 7}, "in tokens or in FLOPs"),
    ],
)
def test_mistakes_in_a_plan_are_located(
    recipe_file: Path, plugins: Plugins, content: dict[str, Any], expected: str
) -> None:
    """Each is told with its file and line."""
    path = recipe_file.with_name("plan.yaml")
    body = {
        "ladder": recipe_file.name,
        **({"rungs": 4} if "rungs" not in content else {}),
        **content,
    }
    path.write_text(yaml.safe_dump(body, sort_keys=False))
    with pytest.raises(RecipeError) as caught:
        read_ladder(path, {}, plugins)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_an_ablations_plan_is_refused(plugins: Plugins) -> None:
    """A plan of the other command is told from a recipe."""
    path = Path(__file__).parents[2] / "recipes/ablations/mqar_micro.yaml"
    with pytest.raises(RecipeError, match=r"mqar_micro.yaml:4:1: ablate: this is a plan for"):
        read_ladder(path, {}, plugins)


def test_a_mistake_in_scale_is_located(recipe_file: Path, plugins: Plugins) -> None:
    """A power that is none, and a path that leads nowhere."""
    text = recipe_file.read_text() + "scale:\n  model.n_embd: x\n  modl.n_embd: 1\n"
    recipe_file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, plugins=plugins)
    assert "expected a power of the width from 0 to 4, got 'x'" in str(caught.value)
    assert "modl" in str(caught.value)


def test_a_rung_that_is_badly_tuned() -> None:
    """Its curve is off what the others lead to; the same spread in all of them is not."""
    rng = np.random.default_rng(0)
    shapes = [
        Shape(k, np.array([2.0, 1.5, 1.2]) + 0.01 * k + 0.005 * rng.standard_normal((3, 3)))
        for k in range(5)
    ]
    assert list(badly_tuned(shapes, range(5))) == []
    shapes[2] = Shape(2, shapes[2].values + 0.3)
    assert [rung for rung, _ in badly_tuned(shapes, range(5))] == [2]
