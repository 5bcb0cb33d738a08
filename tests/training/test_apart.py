"""Fused and separate parameters train alike, under every optimizer that there is."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strawberry.components.optimizer.muon import Muon
from strawberry.contracts import (
    MatrixLayout,
    OptimizerSite,
    OptimizerSource,
    ParameterInfo,
    interleaved,
)
from strawberry.training.apart import SplitMatrices
from strawberry.training.optimizers import Optimizers
from tests.components.optimizer.test_muon import reference
from tests.support import REGISTRY
from tests.training.conftest import RecipeMaker

CPU = torch.device("cpu")
OPTIMIZERS = [e.name for e in REGISTRY.entries("optimizer")]
BY_MATRIX = {"adafactor", "came", "muon", "psgd", "soap"}
STEPS = 5


@dataclass(frozen=True)
class Case:
    """A fused parameter, and the rows of each of its matrices, written down by hand."""

    shape: tuple[int, ...]
    kind: str
    parts: MatrixLayout
    rows: tuple[list[int], ...]


CASES = {
    "qkv": Case((12, 5), "matrix", MatrixLayout.of({"q": (3, 2), "k": 3, "v": 3}),
                ([0, 1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11])),
    "interleaved": Case((12, 5), "matrix", interleaved(2, {"q": (2, 3), "k": (2, 2), "v": (2, 1)}),
                        ([0, 1, 2, 6, 7, 8], [3, 4, 9, 10], [5, 11])),
    "bank": Case((3, 8, 5), "bank", MatrixLayout.of({"up": 4, "gate": 4}),
                 ([0, 1, 2, 3], [4, 5, 6, 7])),
    "bias": Case((7,), "vector", MatrixLayout.of({"q": 4, "k": 3}), ([0, 1, 2, 3], [4, 5, 6])),
    "interleaved_bias": Case((8,), "vector", interleaved(2, {"q": 4, "k": 4}),
                             ([0, 1, 4, 5], [2, 3, 6, 7])),
    "factors": Case((8, 3), "matrix", MatrixLayout.of({"up": 2, "gate": 2}),
                    ([0, 1, 4, 5], [2, 3, 6, 7])),
}  # fmt: skip
"""`factors` are of two experts, the rows of the second under those of the first."""

COPIES = {"bank": 3, "factors": 2}
"""How many matrices of a kind a parameter has."""


def taken(name: str, tensor: Tensor) -> list[Tensor]:
    """The matrices of a case's tensor, picked row by row."""
    case, copies = CASES[name], COPIES.get(name, 1)
    found = []
    for rows in case.rows:
        if name == "bank":
            found += [torch.stack([expert[row] for row in rows]) for expert in tensor]
            continue
        size = len(rows) // copies
        own = [rows[i * size : (i + 1) * size] for i in range(copies)]
        found += [torch.stack([tensor[row] for row in each]) for each in own]
    return found


def values(shape: tuple[int, ...], seed: int) -> Tensor:
    """Values that differ in size from row to row, so that neighbours matter."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator)
    rows = torch.linspace(0.2, 3, shape[0 if len(shape) == 1 else -2])
    return noise * (rows if len(shape) == 1 else rows[:, None])


def fused(name: str) -> ParameterInfo:
    case = CASES[name]
    return ParameterInfo(name, nn.Parameter(values(case.shape, 0)), case.kind, case.parts)


def separate(name: str) -> list[ParameterInfo]:
    kind = "vector" if CASES[name].kind == "vector" else "matrix"
    own = taken(name, values(CASES[name].shape, 0))
    return [ParameterInfo(f"{name}{i}", nn.Parameter(each), kind) for i, each in enumerate(own)]


def drive(
    factory: OptimizerSource, infos: list[ParameterInfo], grads: Callable[[int], Any]
) -> None:
    """Some steps, with the gradients that `grads` gives for each."""
    torch.manual_seed(0)
    np.random.seed(0)  # psgd draws from both
    apart = SplitMatrices(factory, infos)
    optimizer = factory.make(apart.infos, lr=0.02, device=CPU)
    apart.follow(optimizer)
    for step in range(STEPS):
        for info, grad in zip(infos, grads(step), strict=True):
            info.parameter.grad = grad.clone()
        factory.before_step(optimizer, step)
        optimizer.step()


def factory_of(name: str, **fields: Any) -> OptimizerSource:
    made: OptimizerSource = REGISTRY.find("optimizer", name).load()(OptimizerSite(), **fields)
    return made


def test_these_are_the_optimizers_that_know_matrices() -> None:
    """Those that treat a matrix as one say so; the others are tried below all the same."""
    assert {name for name in OPTIMIZERS if factory_of(name).unit != "parameter"} == BY_MATRIX


@pytest.mark.parametrize(
    ("name", "case"),
    [(n, c) for n in OPTIMIZERS for c in CASES if factory_of(n).claims(fused(c))],
)
def test_fused_and_separate_parameters_train_alike(name: str, case: str) -> None:
    """Each matrix goes where it goes as a parameter of its own; so does each number."""
    together, apart = fused(case), separate(case)
    drive(factory_of(name), [together], lambda step: [values(CASES[case].shape, 9 + step)])
    drive(factory_of(name), apart, lambda step: taken(case, values(CASES[case].shape, 9 + step)))
    for found, own in zip(taken(case, together.parameter.detach()), apart, strict=True):
        torch.testing.assert_close(found, own.parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(BY_MATRIX))
def test_a_parameter_that_says_nothing_trains_otherwise(name: str) -> None:
    """The comparison above can fail: without its parts the same tensor goes elsewhere."""
    together, silent = fused("qkv"), replace(fused("qkv"), parts=None)
    for info in (together, silent):
        drive(factory_of(name), [info], lambda step: [values(CASES["qkv"].shape, 9 + step)])
    assert (together.parameter - silent.parameter).abs().max() > 1e-3


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("case", [name for name in CASES if "bias" not in name])
def test_muon_is_the_literal_iteration_on_every_matrix(case: str, adjust: Any) -> None:
    """In float64, one by one: its scale by the matrix's own shape, its decay that of all."""
    info = fused(case)
    factory = Muon(OptimizerSite(), adjust_lr=adjust, momentum=0.9)
    drive(factory, [info], lambda step: [values(CASES[case].shape, 9 + step)])
    every = [taken(case, values(CASES[case].shape, 9 + step)) for step in range(STEPS)]
    starts = taken(case, values(CASES[case].shape, 0))
    for number, found in enumerate(taken(case, info.parameter.detach())):
        m, n = found.shape
        scale = max(1, m / n) ** 0.5 if adjust == "original" else 0.2 * max(m, n) ** 0.5
        grads = [row[number] for row in every]
        expected = reference(starts[number], grads, [0.9] * STEPS, nesterov=True, scale=scale)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_muon_by_head_is_that_of_each_head_s_rows() -> None:
    """Three heads of q, two of each interleaved part; what has no heads stays whole."""
    for case, heads in (("qkv", (3, 1, 1)), ("interleaved", (2, 2, 2))):
        info = fused(case)
        grads = [values(CASES[case].shape, 9 + step) for step in range(STEPS)]
        drive(Muon(OptimizerSite(), heads=True), [info], lambda step, grads=grads: [grads[step]])
        for number, count in enumerate(heads):

            def heads_of(
                tensor: Tensor, number: int = number, count: int = count, case: str = case
            ):
                return taken(case, tensor)[number].chunk(count)

            own = [
                ParameterInfo(f"head{i}", nn.Parameter(rows.clone()), "matrix")
                for i, rows in enumerate(heads_of(values(CASES[case].shape, 0)))
            ]
            drive(Muon(OptimizerSite()), own, lambda step, grads=grads: heads_of(grads[step]))
            for found, each in zip(heads_of(info.parameter.detach()), own, strict=True):
                torch.testing.assert_close(found, each.parameter.detach(), rtol=1e-4, atol=1e-5)


def test_a_shape_of_many_matrices_is_stepped_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of one shape, wide and tall, of several parameters, together and one at a time."""
    shapes = [(4, 6), (6, 4), (3, 4, 6), (6, 4), (5, 6), (4, 6)]

    def run() -> list[Tensor]:
        infos = [
            ParameterInfo(
                str(i), nn.Parameter(values(shape, i)), "bank" if len(shape) > 2 else "matrix"
            )
            for i, shape in enumerate(shapes)
        ]
        drive(Muon(OptimizerSite()), infos, lambda step: [values(shape, step) for shape in shapes])
        return [info.parameter.detach() for info in infos]

    together = run()
    for limit in (1, 60):
        for name in ("TOGETHER", "CACHED"):
            monkeypatch.setattr(f"strawberry.components.optimizer.muon.{name}", limit)
        for one, other in zip(together, run(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(BY_MATRIX))
def test_state_of_every_matrix_is_saved_and_loaded(name: str, make_recipe: RecipeMaker) -> None:
    """Stopped and loaded into new objects, all fused parameters end bit for bit the same."""
    recipe = make_recipe(optimizer={"use": name})

    def infos() -> list[ParameterInfo]:
        torch.manual_seed(0)
        np.random.seed(0)
        return [fused(case) for case in CASES]

    def run(parameters: list[ParameterInfo], optimizers: Optimizers, steps: range) -> None:
        for step in steps:
            for info in parameters:
                info.parameter.grad = values(info.parameter.shape, 9 + step)
            optimizers.step(step)
            optimizers.zero_grad()
            assert all(info.parameter.grad is None for info in parameters)

    whole = infos()
    run(whole, Optimizers(recipe, whole, CPU), range(5))
    before, after = infos(), infos()
    first = Optimizers(recipe, before, CPU)
    run(before, first, range(3))
    with first.evaluating():
        tensors, plain = first.state()
        saved = {path: tensor.clone() for path, tensor in tensors.items()}
        weights = [info.parameter.detach().clone() for info in before]
    second = Optimizers(recipe, after, CPU)
    with torch.no_grad():
        for info, weight in zip(after, weights, strict=True):
            info.parameter.copy_(weight)
    second.load(saved, json.loads(json.dumps(plain)))
    second.loaded()
    run(after, second, range(3, 5))
    for one, other in zip(whole, after, strict=True):
        assert torch.equal(one.parameter, other.parameter), one.name
