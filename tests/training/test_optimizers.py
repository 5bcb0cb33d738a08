import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from strawberry.contracts import ParameterInfo
from strawberry.errors import RecipeError
from strawberry.model.build import build
from strawberry.plugin import Plugins
from strawberry.training.optimizers import Optimizers, assign, make_schedule, state_bytes
from tests.training.conftest import RecipeMaker

CPU = torch.device("cpu")
MUON = {"use": "muon", "lr": 0.02, "momentum_warmup": 3}
REGISTRY = Plugins.load().registry
EVERY = pytest.mark.parametrize("name", [e.name for e in REGISTRY.entries("optimizer")])
THREE = [
    {"use": "lion", "lr": 1e-3, "params": "embedding"},
    {"use": "sgd", "lr": 0.1, "params": "*.ffn.*"},
    {**MUON, "rest": {"use": "schedule_free_adamw"}},
]


def infos() -> list[ParameterInfo]:
    torch.manual_seed(0)
    np.random.seed(0)  # psgd draws from it
    shapes = {
        "embedding.weight": ((8, 4), "embedding"),
        "stack.0.attention.qkv": ((6, 4), "matrix"),
        "stack.0.ffn.up": ((4, 6), "matrix"),
        "stack.0.bank": ((2, 4, 4), "bank"),
        "norm.gain": ((4,), "vector"),
        "stack.0.temperature": ((), "vector"),
    }
    return [
        ParameterInfo(name, nn.Parameter(torch.randn(shape)), kind)
        for name, (shape, kind) in shapes.items()
    ]


def set_gradients(parameters: Sequence[ParameterInfo], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for info in parameters:
        info.parameter.grad = torch.randn(info.parameter.shape, generator=generator)


def names(recipe: object, parameters: list[ParameterInfo]) -> list[tuple[str, list[str]]]:
    return [
        (a.component.entry.name, [i.name for i in a.infos])
        for a in assign(recipe, parameters)  # type: ignore[arg-type]
    ]


def test_muon_takes_matrices_and_its_rest_the_others(make_recipe: RecipeMaker) -> None:
    """One section with one optimizer and its rest covers every parameter once."""
    assert names(make_recipe(optimizer=MUON), infos()) == [
        ("muon", ["stack.0.attention.qkv", "stack.0.ffn.up", "stack.0.bank"]),
        ("adamw", ["embedding.weight", "norm.gain", "stack.0.temperature"]),
    ]


def test_selectors_are_kinds_or_patterns_and_the_first_match_wins(make_recipe: RecipeMaker) -> None:
    """A name pattern, then a kind, then an entry without a selector for what is left."""
    recipe = make_recipe(
        optimizer=[
            {"use": "adamw", "lr": 1e-4, "params": "*.attention.*"},
            {"use": "muon", "params": "matrix"},
            {"use": "adamw"},
        ]
    )
    assert names(recipe, infos()) == [
        ("adamw", ["stack.0.attention.qkv"]),
        ("muon", ["stack.0.ffn.up"]),
        ("adamw", ["embedding.weight", "stack.0.bank", "norm.gain", "stack.0.temperature"]),
    ]


def test_peak_rates_are_the_optimizer_s_own_or_the_recipe_s(make_recipe: RecipeMaker) -> None:
    """Muon has its own; its rest takes train.learning_rate, not Muon's."""
    rates = [a.lr for a in assign(make_recipe(optimizer=MUON), infos())]
    assert rates == [0.02, 3e-3]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ([{"use": "adamw", "params": "matrx"}, {"use": "adamw"}], "matrx"),
        ([{"use": "adamw", "params": "matrix"}], "embedding.weight"),
        ([{"use": "adamw"}, {"use": "adamw", "params": "vector"}], "vector"),
    ],
)
def test_what_is_taken_by_none_or_takes_none_is_refused_at_its_line(
    make_recipe: RecipeMaker, optimizer: object, message: str
) -> None:
    """A selector that matches nothing, a parameter left over, an entry behind one that took all."""
    with pytest.raises(RecipeError, match=message) as caught:
        assign(make_recipe(optimizer=optimizer), infos())
    assert caught.value.problems[0].location is not None


def test_an_own_rate_follows_the_schedule_in_proportion(make_recipe: RecipeMaker) -> None:
    """At every step, all rates are the same fraction of their peaks."""
    recipe = make_recipe(optimizer=MUON)
    parameters = infos()
    optimizers = Optimizers(recipe, parameters, CPU)
    for step in range(8):
        set_gradients(parameters, step)
        optimizers.step(step)
        muon, adamw = (made.param_groups[0]["lr"] for _, made in optimizers.parts)
        assert adamw == optimizers.schedule(step)
        assert muon / 0.02 == pytest.approx(adamw / 3e-3)
        assert optimizers.rates() == {"lr": muon, "lr_adamw": adamw}


@EVERY
def test_the_rate_that_is_told_is_the_one_used(make_recipe: RecipeMaker, name: str) -> None:
    """With a rate of its own, an optimizer tells that, down to a tenth of it at the end."""
    given = {"use": name, "lr": 1e-4}
    recipe = make_recipe(optimizer=given, schedule="cosine", train={"max_iters": 8})
    parameters = infos()
    optimizers = Optimizers(recipe, parameters, CPU)
    told = []
    for step in range(9):
        set_gradients(parameters, step)
        optimizers.step(step)
        told.append(optimizers.rates()["lr"])
    factor = {"prodigy": 1e-6}.get(name, 1.0)  # what it estimates at first
    assert max(told) == pytest.approx(1e-4 * factor, rel=0.05)
    assert told[-1] >= 1e-5 * factor * (1 - 1e-6)


def test_what_adafactor_leaves_of_a_rate_is_told(make_recipe: RecipeMaker) -> None:
    """It never takes more than 1 / sqrt(t), and the log says so."""
    recipe = make_recipe(optimizer={"use": "adafactor", "lr": 5.0}, schedule="constant")
    parameters = infos()
    optimizers = Optimizers(recipe, parameters, CPU)
    for step in range(4):
        set_gradients(parameters, step)
        optimizers.step(step)
    assert optimizers.rates()["lr"] == 0.5


@pytest.mark.parametrize("schedule", [e.name for e in REGISTRY.entries("schedule")])
@pytest.mark.parametrize("peak", [1e-5, 3e-3, 1.0])
def test_no_rate_is_above_its_peak(make_recipe: RecipeMaker, schedule: str, peak: float) -> None:
    """Whatever the peak: the floor is a tenth of it unless it is said."""
    recipe = make_recipe(schedule=schedule, train={"learning_rate": peak, "max_iters": 40})
    rates = [make_schedule(recipe)(step) for step in range(45)]
    assert max(rates) == pytest.approx(peak)
    assert rates[-1] >= peak / 10 * (1 - 1e-9)


def test_a_floor_above_the_peak_is_refused_at_its_line(make_recipe: RecipeMaker) -> None:
    """With the line of the floor, and both numbers."""
    with pytest.raises(RecipeError, match=r"yaml:\d+:\d+: train.min_lr: 0.001 exceeds the peak"):
        make_recipe(train={"learning_rate": 1e-4, "min_lr": 1e-3})


@pytest.mark.parametrize(
    "optimizer", [*({"use": e.name} for e in REGISTRY.entries("optimizer")), MUON, THREE]
)
def test_state_saved_and_loaded_goes_on_bit_for_bit(
    make_recipe: RecipeMaker, optimizer: object
) -> None:
    """Stopped after any step, and loaded into new objects, the parameters end the same."""
    recipe = make_recipe(optimizer=optimizer)

    def run(parameters: list[ParameterInfo], optimizers: Optimizers, steps: range) -> None:
        for step in steps:
            set_gradients(parameters, step)
            optimizers.step(step)

    whole = infos()
    run(whole, Optimizers(recipe, whole, CPU), range(6))
    for stop in range(1, 6):
        before, after = infos(), infos()
        first = Optimizers(recipe, before, CPU)
        run(before, first, range(stop))
        tensors, plain = first.state()
        saved = {path: tensor.clone() for path, tensor in tensors.items()}
        for old, new in zip(before, after, strict=True):
            new.parameter.data.copy_(old.parameter.data)
        second = Optimizers(recipe, list(after), CPU)
        second.load(saved, json.loads(json.dumps(plain)))
        run(after, second, range(stop, 6))
        for one, other in zip(whole, after, strict=True):
            assert torch.equal(one.parameter, other.parameter), (stop, one.name)


def test_loading_another_model_s_state_is_refused(make_recipe: RecipeMaker) -> None:
    """State for a parameter that is not there does not pass in silence."""
    recipe = make_recipe()
    optimizers = Optimizers(recipe, infos(), CPU)
    with pytest.raises(ValueError, match="gone"):
        optimizers.load({}, [{"state": {"gone": {"dict": {}}}, "groups": []}])


@pytest.mark.parametrize("optimizer", [e.name for e in REGISTRY.entries("optimizer")] + [THREE])
def test_state_bytes_is_what_a_step_leaves(make_recipe: RecipeMaker, optimizer: object) -> None:
    """The estimate is to the byte that of a real step, counters and single numbers aside."""
    recipe, parameters = make_recipe(optimizer=optimizer), infos()
    optimizers = Optimizers(recipe, parameters, CPU)
    set_gradients(parameters, 0)
    optimizers.step(0)
    expected = sum(t.nbytes for t in optimizers.state()[0].values() if t.numel() > 1)
    assert state_bytes(assign(recipe, parameters)) == expected


def test_state_bytes_of_factors_are_rows_and_columns(make_recipe: RecipeMaker) -> None:
    """A factored state grows with the sides of a matrix, not with its size."""
    large = ParameterInfo("w", nn.Parameter(torch.empty(1 << 20, 1 << 18, device="meta")), "matrix")
    for name, each in (("adafactor", (1 << 20) + (1 << 18)), ("lion", 1 << 38)):
        assert state_bytes(assign(make_recipe(optimizer=name), [large])) == 4 * each


def test_a_real_model_is_covered_and_a_tied_table_is_stepped_once(make_recipe: RecipeMaker) -> None:
    """All parameters of a built model are assigned, each once."""
    recipe = make_recipe(optimizer=MUON)
    model = build(recipe, "meta")
    taken = [i.name for a in assign(recipe, model.parameter_infos()) for i in a.infos]
    assert sorted(taken) == sorted(name for name, _ in model.named_parameters())


def test_three_optimizers_by_kind_by_pattern_and_for_what_is_left(make_recipe: RecipeMaker) -> None:
    """Each takes what its selector says, and what the last can't take goes to its rest."""
    assert names(make_recipe(optimizer=THREE), infos()) == [
        ("lion", ["embedding.weight"]),
        ("sgd", ["stack.0.ffn.up"]),
        ("muon", ["stack.0.attention.qkv", "stack.0.bank"]),
        ("schedule_free_adamw", ["norm.gain", "stack.0.temperature"]),
    ]


def test_each_of_three_steps_its_own_alone(make_recipe: RecipeMaker) -> None:
    """In a mixture every parameter ends where its optimizer alone would have put it."""
    mixed, alone = infos(), infos()
    together = Optimizers(make_recipe(optimizer=THREE), mixed, CPU)
    parts = [{k: v for k, v in part.items() if k != "params"} for part in THREE]
    apart = [Optimizers(make_recipe(optimizer=part), [alone[i]], CPU)
             for part, i in zip(parts, (0, 2, 1), strict=True)]  # fmt: skip
    for step in range(4):
        for parameters in (mixed, alone):
            set_gradients(parameters, step)
        for each in (together, *apart):
            each.step(step)
    for i in range(3):
        assert torch.equal(mixed[i].parameter, alone[i].parameter), mixed[i].name


@EVERY
def test_a_parameter_without_gradient_waits(make_recipe: RecipeMaker, name: str) -> None:
    """It stays as it is, without state, until it has a gradient; the others go on."""
    parameters = infos()
    rate = 1.0 if name.endswith("prodigy") else 0.01  # of steps that it begins with at 1e-6
    optimizers = Optimizers(make_recipe(optimizer={"use": name, "lr": rate}), parameters, CPU)
    before = [i.parameter.detach().clone() for i in parameters]
    for step in range(2):
        set_gradients(parameters, step)
        for info in parameters[::2]:
            info.parameter.grad = None
        optimizers.step(step)
    same = [torch.equal(i.parameter, b) for i, b in zip(parameters, before, strict=True)]
    assert same == [True, False] * 3
    set_gradients(parameters, 2)
    optimizers.step(2)
    assert not any(torch.equal(i.parameter, b) for i, b in zip(parameters, before, strict=True))
    assert all(i.parameter.isfinite().all() for i in parameters)


@EVERY
def test_zero_gradients_do_no_harm(make_recipe: RecipeMaker, name: str) -> None:
    """Steps on gradients of zero leave finite numbers, and state to go on from."""
    parameters = infos()
    optimizers = Optimizers(make_recipe(optimizer={"use": name, "lr": 0.01}), parameters, CPU)
    for step in range(3):
        for info in parameters:
            info.parameter.grad = torch.zeros_like(info.parameter)
        optimizers.step(step)
    set_gradients(parameters, 3)
    optimizers.step(3)
    assert all(i.parameter.isfinite().all() for i in parameters)


@EVERY
def test_evaluating_leaves_each_bit(make_recipe: RecipeMaker, name: str) -> None:
    """Weights and state after an evaluation are those before it."""
    parameters = infos()
    optimizers = Optimizers(make_recipe(optimizer={"use": name, "lr": 0.01}), parameters, CPU)
    for step in range(3):
        set_gradients(parameters, step)
        optimizers.step(step)
    before = {i.name: i.parameter.detach().clone() for i in parameters}
    state = {path: tensor.clone() for path, tensor in optimizers.state()[0].items()}
    with optimizers.evaluating():
        assert all(i.parameter.isfinite().all() for i in parameters)
    assert all(torch.equal(i.parameter, before[i.name]) for i in parameters)
    assert state.keys() == optimizers.state()[0].keys()
    assert all(torch.equal(state[path], t) for path, t in optimizers.state()[0].items())
