import math

import pytest
import torch
from torch import Tensor, nn

from strawberry.components.optimizer.muon import Muon
from strawberry.model.contracts import ParameterInfo

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
    """Steps agree with a float64 loop up to the bfloat16 in which torch iterates."""
    info = matrix(rows, columns)
    start = info.parameter.detach().clone()
    factory = Muon(nesterov=nesterov, adjust_lr=adjust, momentum=0.9)  # type: ignore[arg-type]
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
    moved = (expected - start).abs().max().item()
    assert (info.parameter.double() - expected).abs().max().item() < 0.06 * moved


@pytest.mark.parametrize("momentum", [0.95, 0.9])
def test_momentum_warms_up_as_a_function_of_the_step_alone(momentum: float) -> None:
    """From 0.85 at step 0 linearly to the momentum; asking out of order changes nothing."""
    factory = Muon(momentum=momentum, momentum_warmup=300)
    optimizer = factory.make([matrix(4, 4)], lr=0.02, device=CPU)
    for step in (900, 0, 150, 299, 300, 0):
        factory.before_step(optimizer, step)
        done = min(step / 300, 1)
        expected = (1 - done) * 0.85 + done * momentum
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(expected, abs=1e-15)


def test_without_a_warmup_the_momentum_stays() -> None:
    """No warm-up steps leave the momentum at what the recipe says, from the first step."""
    factory = Muon(momentum=0.7)
    optimizer = factory.make([matrix(4, 4)], lr=0.02, device=CPU)
    factory.before_step(optimizer, 0)
    assert optimizer.param_groups[0]["momentum"] == 0.7


def test_claims_hidden_matrices_alone() -> None:
    """Embeddings, stacks of matrices and vectors are left to the rest."""

    def of(kind: str, *shape: int) -> ParameterInfo:
        return ParameterInfo("p", nn.Parameter(torch.zeros(shape)), kind)

    muon = Muon()
    assert muon.claims(of("matrix", 4, 4))
    assert not muon.claims(of("embedding", 4, 4))
    assert not muon.claims(of("bank", 2, 4, 4))
    assert not muon.claims(of("vector", 4))
