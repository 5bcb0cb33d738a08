"""A small ladder whose trials write results instead of training."""

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import yaml

from strawberry.ablate.sweep import SweepObserver
from strawberry.ladder.climb import Ladder
from strawberry.ladder.plan import LadderPlan, read_ladder
from strawberry.ladder.record import LadderRecord
from strawberry.ladder.rungs import Rung, make_rungs
from strawberry.plugin import Plugins
from tests.ablate.conftest import small
from tests.ablate.test_sweep import Scripted

VARY = {"model.stack.*.ffn": ("swiglu", "geglu")}
FLOPS = 1e8
"""About those of the smallest rung."""


def plan_of(path: Path, plugins: Plugins, **options: Any) -> LadderPlan:
    """A ladder over the small recipe; its two architectures have equal FLOPs as they are."""
    given = {"vary": VARY, "rungs": 4, "seeds": 2, "tokens_per_parameter": 2.0}
    return read_ladder(path, {**given, **options}, plugins)


Made: TypeAlias = tuple[LadderPlan, list[Rung]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Made:
    """A ladder of four rungs, made ready once for all tests."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.with_name("text.txt").write_text("a strawberry is red, a blueberry is blue. " * 200)
    path.write_text(yaml.safe_dump(small(path.with_name("text.txt"))))
    plan = plan_of(path, plugins)
    return plan, make_rungs(plan, plugins)


def law(rungs: list[Rung]) -> Callable[[Mapping[str, Any]], float]:
    """The loss of a run by its compute; geglu's is a little lower above the floor."""
    flops = {row["optimizer_steps"]: row["training_flops"] for r in rungs for row in r.all_rows()}

    def loss(recipe: Mapping[str, Any]) -> float:
        block = recipe["model"]["stack"][0]["stack"][0]
        compute = flops[recipe["train"]["max_iters"]]
        factor = 0.95 if "geglu" in block["ffn"]["use"] else 1.0
        place = [recipe["seed"], recipe["train"]["max_iters"], int(100 * factor)]
        noise = 0.002 * np.random.default_rng(place).standard_normal()
        return (1.5 + 2.5 * factor * (compute / FLOPS) ** -0.2) * math.exp(noise)

    return loss


def climb(plan: LadderPlan, rungs: list[Rung], out: Path, loss: Any = None) -> LadderRecord:
    """Run a ladder whose results are a law's, or another's."""

    def watch(*_: Any) -> Any:
        return contextlib.nullcontext(SweepObserver())

    return Ladder(plan, rungs, Scripted(loss or law(rungs)), out, watch).run()
