import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from strawberry.components.optimizer import muon as muon_module
from strawberry.components.optimizer.muon import Muon, precision
from strawberry.contracts import OptimizerSite, ParameterInfo

CPU = torch.device("cpu")


def matrix(rows: int, columns: int, seed: int = 0) -> ParameterInfo:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return ParameterInfo("w", nn.Parameter(weight), "matrix")


def newton_schulz(U: Tensor, steps: int) -> Tensor:
    """The quintic iteration in float64, on the wide side."""
    a, b, c = 3.4445, -4.7750, 2.0315
    X = U.double() / (U.double().norm() + 1e-7)
    if U.shape[0] > U.shape[1]:
        X = X.T
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X.T if U.shape[0] > U.shape[1] else X


def reference(
    start: Tensor, grads: list[Tensor], momenta: list[float], *, nesterov: bool, scale: float,
    lr: float = 0.02, decay: float = 0.1, steps: int = 5,
) -> Tensor:  # fmt: skip
    W, M = start.double(), torch.zeros_like(start, dtype=torch.float64)
    for G, mu in zip((g.double() for g in grads), momenta, strict=True):
        M = mu * M + (1 - mu) * G
        U = (1 - mu) * G + mu * M if nesterov else M
        W = (1 - lr * decay) * W - lr * scale * newton_schulz(U, steps)
    return W


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (12, 5), (5, 12)])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_equals_the_literal_iteration(nesterov: bool, rows: int, columns: int, adjust: str) -> None:
    """Steps agree with a float64 loop."""
    info = matrix(rows, columns)
    start = info.parameter.detach().clone()
    factory = Muon(OptimizerSite(), nesterov=nesterov, adjust_lr=adjust, momentum=0.9)  # type: ignore[arg-type]
    optimizer = factory.make([info], lr=0.02, device=CPU)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(rows, columns, generator=generator) for _ in range(4)]
    for step, grad in enumerate(grads):
        info.parameter.grad = grad.clone()
        factory.before_step(optimizer, step)
        optimizer.step()
    wide, tall = max(rows, columns), rows / columns
    scale = math.sqrt(max(1, tall)) if adjust == "original" else 0.2 * math.sqrt(wide)
    expected = reference(start, grads, [0.9] * 4, nesterov=nesterov, scale=scale)
    torch.testing.assert_close(info.parameter.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.95, 0.9])
def test_momentum_warms_up_as_a_function_of_the_step_alone(momentum: float) -> None:
    """From 0.85 at step 0 linearly to the momentum; asking out of order changes nothing."""
    factory = Muon(OptimizerSite(), momentum=momentum, momentum_warmup=300)
    optimizer = factory.make([matrix(4, 4)], lr=0.02, device=CPU)
    for step in (900, 0, 150, 299, 300, 0):
        factory.before_step(optimizer, step)
        done = min(step / 300, 1)
        expected = (1 - done) * 0.85 + done * momentum
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(expected, abs=1e-15)


def test_without_a_warmup_the_momentum_stays() -> None:
    """No warm-up steps leave the momentum at what the recipe says, from the first step."""
    factory = Muon(OptimizerSite(), momentum=0.7)
    optimizer = factory.make([matrix(4, 4)], lr=0.02, device=CPU)
    factory.before_step(optimizer, 0)
    assert optimizer.param_groups[0]["momentum"] == 0.7


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 6), (24, 5), (5, 24), (1, 7), (64, 32)])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_equals_torch_s_own_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
    nesterov: bool,
    shape: tuple[int, int],
    adjust: Literal["original", "match_rms_adamw"],
) -> None:
    """In the precision of an accelerator, every step on a matrix is that of torch.optim.Muon."""
    assert precision(torch.device("cuda")) is torch.bfloat16
    monkeypatch.setattr(muon_module, "precision", lambda device: torch.bfloat16)
    ours, torchs = matrix(*shape), matrix(*shape)
    fields: dict[str, Any] = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.3}
    optimizers = [
        Muon(OptimizerSite(), **fields, adjust_lr=adjust).make([ours], lr=0.02, device=CPU),
        torch.optim.Muon([torchs.parameter], lr=0.02, **fields, adjust_lr_fn=adjust),
    ]
    for step in range(4):
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        for each, optimizer in zip((ours, torchs), optimizers, strict=True):
            each.parameter.grad = grad.clone()
            optimizer.step()
        assert torch.equal(ours.parameter, torchs.parameter), step


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 12, 5), (4, 5, 12)])
def test_a_stack_is_stepped_matrix_by_matrix(shape: tuple[int, ...]) -> None:
    """Each matrix of a stack goes where it would go alone; one of zeros stays."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    bank = ParameterInfo("bank", nn.Parameter(start.clone()), "bank")
    alone = [ParameterInfo("w", nn.Parameter(w.clone()), "matrix") for w in start]
    factory = Muon(OptimizerSite(), weight_decay=0.0)
    together = factory.make([bank], lr=0.02, device=CPU)
    apart = factory.make(alone, lr=0.02, device=CPU)
    for _ in range(3):
        grad = torch.randn(shape, generator=generator)
        grad[1] = 0
        bank.parameter.grad = grad
        for each, g in zip(alone, grad, strict=True):
            each.parameter.grad = g.clone()
        together.step()
        apart.step()
    expected = torch.stack([each.parameter.detach() for each in alone])
    torch.testing.assert_close(bank.parameter.detach(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(bank.parameter[1], start[1])


def test_claims_hidden_matrices_and_stacks_of_them() -> None:
    """Embeddings and vectors are left to the rest."""

    def of(kind: str, *shape: int) -> ParameterInfo:
        return ParameterInfo("p", nn.Parameter(torch.zeros(shape)), kind)

    muon = Muon(OptimizerSite())
    assert muon.claims(of("matrix", 4, 4))
    assert not muon.claims(of("embedding", 4, 4))
    assert muon.claims(of("bank", 2, 4, 4))
    assert not muon.claims(of("vector", 4))
