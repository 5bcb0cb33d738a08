"""Budgets: counted, kept to, and made equal within 1 % for everything that the registry has."""

from typing import Any

import pytest

import strawberry
from strawberry.ablate import fair
from strawberry.ablate.cells import Cell
from strawberry.ablate.fair import TOLERANCE, budget, match_width, tokens_per_step
from strawberry.ablate.preparing import prepare
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from strawberry.recipe import patch
from strawberry.recipe.spec import Recipe
from tests.ablate.conftest import PlanMaker
from tests.support import REGISTRY, recipe_of, tiny

PARTS = ("attention", "ffn")
EVERY = [(part, entry.full_name) for part in PARTS for entry in REGISTRY.entries(part)]


def test_active_parameters_by_hand() -> None:
    """Of 8 experts with 2 active, three quarters of the banks don't take part; shared ones do."""
    moe = {"use": "moe", "experts": 8, "active": 2, "n_ffn": 8}
    for shared in (0, 2):
        recipe = tiny({"attention": "mha", "ffn": {**moe, "shared": shared}}, n_embd=16)
        found = budget(recipe)
        bank = 8 * (2 * 8 * 16 + 16 * 8)
        assert found.parameters - found.active_parameters == bank * 6 // 8


@pytest.mark.parametrize(
    "weights", ["owned", "shared", "factorized", "retained", {"use": "step_lora", "of": "shared"}]
)
@pytest.mark.parametrize("routing", ["token", "expert"])
def test_idle_experts_of_every_weight_source(weights: Any, routing: str) -> None:
    """Three quarters of what is added by 8 experts instead of 4 are idle, wherever that lives.

    Every source has one part of its parameters in proportion to the number of experts. With 2 of 8
    and 1 of 4 active the rest is the same and active, but for the router's rows.
    """
    found = {}
    for experts, active in ((4, 1), (8, 2)):
        moe = {"use": "moe", "experts": experts, "active": active, "n_ffn": 8, "routing": routing,
               "gate": "sigmoid"}  # fmt: skip
        recur = {"recur": 2, "weights": weights, "stack": [{"attention": "mha", "ffn": moe}]}
        cost = budget(tiny(recur, n_embd=16))
        found[experts] = (cost.parameters, cost.parameters - cost.active_parameters)
    grown = found[8][0] - found[4][0] - 4 * 16
    assert found[8][1] - found[4][1] == pytest.approx(grown * 3 / 4)
    assert found[8][1] > 0


def test_idle_experts_of_an_objective_count() -> None:
    """Its own block is like the stack's last, which has as many idle experts."""
    moe = {"use": "moe", "experts": 8, "active": 2, "n_ffn": 8}
    stack = {"attention": "mha", "ffn": moe}
    for weights, uses in (("owned", 2), ("shared", 1)):
        recipe = tiny(stack, n_embd=16, weights=weights)
        found = budget(
            patch(recipe, {"objective": {"use": "multi_token", "tokens": 2, "form": "chained"}})
        )
        bank = 8 * (2 * 8 * 16 + 16 * 8)
        assert found.parameters - found.active_parameters == uses * bank * 6 // 8


def test_a_budget_is_reused_only_where_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted again with anything that counting may read; not for names, seeds, data and steps."""
    base = tiny({"attention": "mha", "ffn": "swiglu"})
    counts = list[Recipe]()
    original = fair._count

    def count(recipe: Recipe, model: Any) -> Any:
        counts.append(recipe)
        return original(recipe, model)

    monkeypatch.setattr(fair, "_count", count)
    known: dict[str, fair.Budget] = {}
    for changes, new in (
        ({}, True),
        ({"name": "other", "seed": 9, "train.max_iters": 7}, False),
        ({"objective": {"use": "multi_token", "tokens": 2, "form": "chained"}}, True),
        ({"train.dtype": "bfloat16"}, True),
        ({"train.batch_size": 3}, True),
    ):
        before = len(counts)
        assert budget(patch(base, changes), known) == budget(patch(base, changes))
        assert len(counts) - before == 1 + new


def test_rejected_widths_are_built_once() -> None:
    """The search asks for each width at most once, also those between multiples of the heads."""
    base = tiny({"attention": {"use": "mha", "n_head": 16}, "ffn": "swiglu"}, n_embd=64)
    path, tried = "model.stack.*.attention.n_qkv", list[int]()

    class Counted(Cell):
        def changed(self, more: Any, base: Recipe) -> Cell:
            tried.append(more[path])
            return super().changed(more, base)

    def parameters(cell: Cell) -> float:
        return float(fair.parameters(cell.model))

    cell = Counted("recipe", {}, base)
    fair._search_width(cell, path, 1.5 * parameters(cell), parameters, base)
    assert len(tried) == len(set(tried)) > 16


def test_dense_models_are_all_active() -> None:
    """Nothing is idle in one."""
    found = budget(tiny({"attention": "mha", "ffn": "swiglu"}))
    assert found.parameters == found.active_parameters


@pytest.mark.parametrize("attention", ["moe_attention", "expert_abundance"])
def test_experts_of_attention_count(attention: str) -> None:
    """Some are idle with one of four active, and none with all of them."""
    few, many = (
        budget(tiny({"attention": {"use": attention, "experts": 4, "active": a}})) for a in (1, 4)
    )
    assert few.active_parameters < few.parameters
    assert many.active_parameters == many.parameters


def test_a_budget_is_kept_to(make_plan: PlanMaker, plugins: Plugins) -> None:
    """Tokens in whole steps; FLOPs buy a cheaper cell more steps, to within one step."""
    plan = make_plan(vary={"model.stack.*.ffn": ("swiglu", "none")}, tokens=1000)
    for cell in prepare(plan, plugins).live:
        assert cell.recipe is not None
        assert cell.recipe.train.max_iters == 1000 // 32
    plan = make_plan(vary={"model.stack.*.ffn": ("swiglu", "none")}, flops=1e9)
    prepared = prepare(plan, plugins)
    for cell in prepared.live:
        cost = prepared.budgets[cell.name]
        assert cell.recipe is not None
        step = cost.flops_per_token * tokens_per_step(cell.recipe)
        assert 1e9 - step < cost.flops <= 1e9
    with pytest.raises(StrawberryError, match="less than one step of 32"):
        prepare(make_plan(vary={"model.stack.*.ffn": ("swiglu", "none")}, tokens=10), plugins)


@pytest.mark.parametrize("quantity", ["params", pytest.param("flops", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("part", "name"), EVERY)
def test_everything_in_the_registry_can_be_matched(
    part: str, name: str, quantity: str, make_plan: PlanMaker, plugins: Plugins
) -> None:
    """Within 1 % of a llama of width 64, counted on the model that is built, by another count."""
    # A historic form's products take more FLOPs than a whole model of this size.
    hidden = 32768 if name.startswith("retention/") else 3072
    base = recipe_of({
        "vocab_size": 512, "block_size": 64, "n_embd": 64, "positional": "rope",
        "stack": [{"repeat": 2, "attention": {"use": "mha", "n_head": 4},
                   "ffn": {"use": "swiglu", "n_ffn": hidden}}],
    })  # fmt: skip
    path = f"model.stack.*.{part}"
    changes: dict[str, Any] = {path: name}
    try:
        strawberry.build(patch(base, changes), "meta")
    except StrawberryError:
        changes["model.positional"] = "none"
        strawberry.build(patch(base, changes), "meta")
    plan = make_plan(vary={path: ("mha", changes[path])}, match=quantity)
    cell = Cell(name, changes, patch(base, changes))
    found = match_width(cell, Cell("recipe", {}, base), plan, base)
    assert found.recipe is not None
    one, other = strawberry.build(base, "meta"), strawberry.build(found.recipe, "meta")
    if quantity == "params":
        sizes = [sum(p.numel() for p in model.parameters()) for model in (one, other)]
        assert abs(sizes[1] / sizes[0] - 1) <= TOLERANCE
    else:
        costs = [budget(recipe).flops_per_token for recipe in (base, found.recipe)]
        assert abs(costs[1] / costs[0] - 1) <= TOLERANCE


def test_a_cell_is_built_once(
    make_plan: PlanMaker, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its budget, its steps and the search for later tokens take the model that it was built as."""
    calls = list[object]()

    def counted(recipe: Recipe, device: str) -> object:
        calls.append(recipe)
        return strawberry.build(recipe, device)

    for module in ("cells", "fair", "preparing"):
        monkeypatch.setattr(f"strawberry.ablate.{module}.build", counted)
    plan = make_plan(vary={"model.stack.*.ffn": ("swiglu", "mlp")}, tokens=2000, causal=True)
    assert len(prepare(plan, plugins).live) == len(calls) == 2


def test_what_was_resized_is_said(make_plan: PlanMaker, plugins: Plugins) -> None:
    """The path, and both values."""
    plan = make_plan(vary={"model.stack.*.ffn": ("swiglu", "geglu", "none")}, match="flops",
                     width="model.stack.*.attention.n_qkv")  # fmt: skip
    prepared = prepare(plan, plugins)
    assert prepared.cells[1].resized == ""  # a gated unit of another function costs the same
    assert prepared.cells[2].skipped or "n_qkv: " in prepared.cells[2].resized
