"""Ladders whose rungs have several token counts, from cooldowns that branch from one run."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.ablate.sweep import SweepObserver
from strawberry.ablate.trials import Trials
from strawberry.ablate.worker import _run as run_trial
from strawberry.contracts.execution import FINISHED
from strawberry.ladder.climb import Ladder
from strawberry.ladder.plan import LadderPlan
from strawberry.ladder.results import results_of
from strawberry.ladder.rungs import Rung, make_rungs
from strawberry.ladder.sentences import held_out_lines, rung_rows
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from tests.ablate.test_sweep import Scripted
from tests.ladder.scripted import climb, law, plan_of

STABLE = ("schedule=wsd", "train.cooldown_frac=0.5", "train.max_iters=60")
SHARES = (0.6, 0.3)


@pytest.fixture
def branching(recipe_file: Path, plugins: Plugins) -> tuple[LadderPlan, list[Rung]]:
    """A ladder of four rungs with two further cooldowns each, the top one held out."""
    plan = plan_of(
        recipe_file, plugins, overrides=STABLE, cooldowns=SHARES, hold_out=1,
        tokens_per_parameter=10.0,
    )  # fmt: skip
    return plan, make_rungs(plan, plugins)


@pytest.mark.slow
def test_every_token_count_is_fitted(
    branching: tuple[LadderPlan, list[Rung]], tmp_path: Path
) -> None:
    """Branches start from the runs of their seed; tables, predictions and costs have them."""
    plan, rungs = branching
    started: list[Mapping[str, Any]] = []

    class Noting(Scripted):
        def write(self, job: Any, result: Mapping[str, Any]) -> None:
            fork = job.request.get("fork", {"step": 0})
            started.append(fork)
            steps = rung_steps(job.request["recipe"])
            told = {**result, "steps": steps, "forked_at": fork["step"]}
            (job.folder / "result.json").write_text(json.dumps(told))

    record = Ladder(
        plan, rungs, Noting(law(rungs)), tmp_path / "out",
        lambda *_: contextlib.nullcontext(SweepObserver()),
    ).run()  # fmt: skip
    assert len(started) == 4 * 3 * 2 * 2
    forks = [fork for fork in started if fork["step"]]
    assert len(forks) == 4 * 2 * 2 * 2
    assert {Path(fork["run"]).parents[2].name for fork in forks} == {
        f"rung-{n}" for n in (1, 2, 3, 4)
    }
    results = results_of(record)
    assert len(results.analysis.runs) == len(started)
    assert len(results.held_out) == 2 * 3
    assert all(row["held"] for row in results.held_out)
    content = results.to_json()
    assert len({line.partition(" was ")[0] for line in held_out_lines(content)}) == 2 * 3
    sizes = [row for rung in rungs for row in rung.all_rows()]
    shared = sum(r["shared_steps"] / r["optimizer_steps"] * r["training_flops"] for r in sizes)
    whole = sum(row["training_flops"] for row in sizes)
    assert content["training_flops"] == pytest.approx(2 * (whole - shared))
    assert shared > 0.15 * whole
    assert sum(" + " in row[7] for row in rung_rows(content)) == 4 * 2 * 2
    again = climb(plan, rungs, tmp_path / "out", lambda recipe: pytest.fail("trained again"))
    assert len(list(again.rows())) == len(started)


def rung_steps(recipe: str) -> int:
    """The steps of a recipe in YAML."""
    return int(yaml.safe_load(recipe)["train"]["max_iters"])


def test_a_branch_without_its_checkpoint_starts_over(
    recipe_file: Path, plugins: Plugins, tmp_path: Path
) -> None:
    """A trial comes to the same loss from a checkpoint as without one, and says what it shared."""
    settings = ["schedule=wsd", "train.cooldown_frac=0.5", "train.max_iters=8"]
    long = load_recipe(recipe_file, [*settings, "train.checkpoint_steps=[3]"], plugins=plugins)
    short = load_recipe(recipe_file, [*settings, "train.max_iters=6"], plugins=plugins)
    trials = Trials(tmp_path)
    first, second = trials.make("long", long, 1), trials.make("short", short, 1)

    def outcome(trial: Any, parent: Any = None) -> dict[str, Any]:
        job = trial.job(parent)
        job.folder.mkdir(exist_ok=True)
        result = run_trial(job.folder, job.request)
        assert result["status"] == FINISHED
        return result

    outcome(first)
    parent = (first.folder / "run", 3)
    branch = outcome(second, parent)
    shutil.rmtree(second.folder)
    shutil.rmtree(parent[0] / "checkpoints")
    scratch = outcome(second, parent)
    assert (branch["forked_at"], scratch["forked_at"]) == (3, 0)
    assert branch["metrics"] == scratch["metrics"]


@pytest.mark.slow
def test_a_rung_keeps_where_its_branches_leave(recipe_file: Path, plugins: Plugins) -> None:
    """Branches have a share of the tokens, the same warm-up, and steps shared with the long run."""
    plan = plan_of(
        recipe_file, plugins, overrides=STABLE, cooldowns=(0.5,), rungs=2, tokens_per_parameter=10.0
    )
    for rung in make_rungs(plan, plugins):
        long, short = (p.live[0].recipe for p in (rung.prepared, rung.branches[0].prepared))
        assert long is not None
        assert short is not None
        assert short.train.max_iters == round(long.train.max_iters / 2)
        assert short.train.warmup_iters == long.train.warmup_iters
        row = rung.all_rows()[-1]
        assert long.train.checkpoint_steps == (row["shared_steps"],)
        assert row["shared_steps"] == pytest.approx(row["optimizer_steps"] / 2, abs=1.5)
