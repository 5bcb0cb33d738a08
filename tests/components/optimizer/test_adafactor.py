import math

import pytest
import torch
from torch import Tensor

from strawberry.components.optimizer.adafactor import Adafactor
from strawberry.contracts import OptimizerSite
from tests.components.optimizer.cases import close, drive, gradients, info, starts

RATES = [0.01, 0.03, 0.02, 0.02, 0.005]


def rms(x: Tensor) -> float:
    return math.sqrt(sum(v * v for v in x.flatten().tolist()) / x.numel())


def factored(R: Tensor, C: Tensor) -> Tensor:
    """Algorithm 2's estimate, entry by entry: V_ij = R_i C_j / mean(R)."""
    mean = sum(R.tolist()) / len(R)
    rows = [[r * c / mean for c in C.tolist()] for r in R.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def reference(
    start: Tensor, grads: list[Tensor], rates: list[float], power: float, clip: float,
    min_scale: float, decay: float,
) -> Tensor:  # fmt: skip
    """Algorithms 4 and 5 of the paper in float64; a stack of matrices is factored one by one."""
    W = start.clone()
    stack = W.view(-1, *W.shape[-2:]) if W.ndim > 1 else W.view(1, 1, -1)
    R = torch.zeros(stack.shape[:2], dtype=torch.float64)
    C = torch.zeros(stack.shape[0], stack.shape[2], dtype=torch.float64)
    V = torch.zeros_like(W)
    for t, (grad, lr) in enumerate(zip((g.double() for g in grads), rates, strict=True), start=1):
        kept = 1 - t**-power
        scale = max(min_scale, rms(W)) * min(lr, 1 / math.sqrt(t))
        W = W - lr * decay * W
        if W.ndim > 1:
            for e, G in enumerate(grad.view(stack.shape)):
                R[e] = kept * R[e] + (1 - kept) * (G * G).mean(1)
                C[e] = kept * C[e] + (1 - kept) * (G * G).mean(0)
            V = torch.stack([factored(r, c) for r, c in zip(R, C, strict=True)]).view(W.shape)
        else:
            V = kept * V + (1 - kept) * grad * grad
        U = grad / V.sqrt()
        W = W - scale * U / max(1.0, rms(U) / clip)
    return W


@pytest.mark.parametrize("clip", [1.0, 1.2])
def test_equals_the_paper_s_algorithm(clip: float) -> None:
    """Several steps over matrices, a bank, a vector and a number give the literal loop's."""
    infos = [info("matrix", 4, 3), info("column", 4, 1), info("bank", 2, 3, 4), info("gain", 5),
             info("scalar")]  # fmt: skip
    before, grads = starts(infos), gradients(infos, len(RATES))
    drive(
        Adafactor(OptimizerSite(), decay_power=0.7, clip=clip, weight_decay=0.2),
        infos,
        RATES,
        grads,
    )
    close(infos, [
        reference(start, [row[i] for row in grads], RATES, 0.7, clip, 1e-3,
                  0.2 if start.ndim > 1 else 0.0)
        for i, start in enumerate(before)
    ])  # fmt: skip


def test_no_step_is_larger_than_the_root_allows() -> None:
    """A rate above 1 / sqrt(t) counts as that, from the first step on."""
    rates = [0.9, 0.9, 0.9, 0.9]
    infos, bounded = [info("matrix", 4, 3)], [info("matrix", 4, 3)]
    grads = gradients(infos, 4)
    drive(Adafactor(OptimizerSite()), infos, rates, grads)
    drive(Adafactor(OptimizerSite()), bounded, [min(0.9, t**-0.5) for t in range(1, 5)], grads)
    torch.testing.assert_close(infos[0].parameter, bounded[0].parameter)


@pytest.mark.parametrize("shape", [(4, 3), (5,)])
@pytest.mark.parametrize("factor", [1e6, 1e-4, 1e-8])
def test_the_size_of_gradients_does_not_matter(shape: tuple[int, ...], factor: float) -> None:
    """Gradients a million times larger, or of 1e-8, make the same steps."""
    plain, scaled = [info("w", *shape)], [info("w", *shape)]
    grads = gradients(plain, 3)
    drive(Adafactor(OptimizerSite()), plain, [0.01] * 3, grads)
    drive(
        Adafactor(OptimizerSite()), scaled, [0.01] * 3, [[g * factor for g in row] for row in grads]
    )
    torch.testing.assert_close(scaled[0].parameter, plain[0].parameter, rtol=1e-5, atol=1e-6)


def test_rows_without_gradient_stay_until_they_have_one() -> None:
    """An embedding that was not seen has a mean square of zero, and doesn't turn into NaN."""
    each = info("embedding", 4, 3)
    before = each.parameter.detach().clone()
    seen = torch.zeros(4, 3)
    seen[1] = 1.0
    drive(Adafactor(OptimizerSite()), [each], [0.01, 0.01], [[seen], [seen]])
    moved = (each.parameter != before).all(1)
    assert moved.tolist() == [False, True, False, False]
    assert each.parameter.isfinite().all()
    drive(Adafactor(OptimizerSite()), [each], [0.01], [[torch.zeros(4, 3)]])
    assert each.parameter.isfinite().all()


def test_state_is_rows_and_columns() -> None:
    """A matrix keeps m + n numbers, a stack that for each matrix, a vector all of its own."""
    infos = [info("matrix", 40, 30), info("bank", 2, 30, 40), info("gain", 5)]
    optimizer = drive(Adafactor(OptimizerSite()), infos, [0.01], gradients(infos, 1))
    sizes = [sum(v.numel() for v in optimizer.state[i.parameter].values() if v.ndim) for i in infos]
    assert sizes == [70, 140, 5]
