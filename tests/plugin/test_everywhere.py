"""AXLearn's measure: what another distribution brings is used by every recipe, unchanged.

Lee et al. 2025, arXiv 2507.05411, section 4: lines of code that change to bring a feature into
every model. Here: none; each recipe as it stands, with three overrides.
"""

from __future__ import annotations

from pathlib import Path

import strawberry
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from tests.plugin.fakes import FakeSite, registers

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
PARTS = """
from strawberry.contracts import (
    Initial, Join, Learned, Objective, Parametrization, Prediction, Residual, StepScale,
)


class Fading(Residual):
    def join(self, site):
        return Fades()


class Fades(Join):
    def read(self, stream, use):
        return stream

    def forward(self, stream, y, use):
        return 0.99 * stream + y


class Sharp(Objective):
    def forward(self, batch):
        states = batch.states()
        found = batch.cross_entropy(states.hidden, z_loss=1e-4)
        return Learned(found.total, found.cross_entropy)

    def predictions(self, batch):
        yield Prediction(batch.states().hidden, batch.targets)


class Calm(Parametrization):
    sees_growth = True

    def initial(self, weight):
        return Initial(0.02 if weight.kind in ("embedding", "head") else weight.fan_in**-0.5)

    def step(self, weight, update):
        return StepScale(rate=0.5) if weight.grows[0] else StepScale()
"""
CALLS = [
    "registry.residual('fading', 'elsewhere_parts:Fading')",
    "registry.objective('sharp', 'elsewhere_parts:Sharp')",
    "registry.parametrization('calm', 'elsewhere_parts:Calm')",
]
BROUGHT = ["model.residual=fading", "objective=sharp", "model.parametrization=calm"]


def test_every_recipe_takes_them(site: FakeSite) -> None:
    """Each recipe builds with a residual, an objective and a parametrization from elsewhere."""
    site.module("elsewhere_parts", PARTS)
    site.install("elsewhere", registers(*CALLS))
    plugins = Plugins.load()
    assert len(RECIPES) > 15
    for path in RECIPES:
        recipe = load_recipe(path, BROUGHT, plugins=plugins)
        model = strawberry.build(recipe, "meta")
        assert type(model.residual).__name__ == "Fading", path.name
        assert type(model.objective).__name__ == "Sharp", path.name
        rates = {info.step("elementwise").rate for info in model.parameter_infos()}
        assert rates == {0.5, 1.0}, path.name
