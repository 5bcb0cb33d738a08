import contextlib
import math

import pytest
import torch
from torch import Tensor

from strawberry.components.optimizer.schedule_free_adamw import ScheduleFreeAdamW
from strawberry.contracts import OptimizerSite
from tests.components.optimizer.cases import CPU, close, drive, gradients, info, starts

RATES = [0.01, 0.02, 0.05, 0.05, 0.05, 0.03, 0.01]
Triple = tuple[Tensor, Tensor, Tensor]


def reference(
    start: Tensor, grads: list[Tensor], rates: list[float],
    b1: float, b2: float, eps: float, decay: float,
) -> Triple:  # fmt: skip
    """Algorithm 1 of the paper with all three sequences, number by number: y, z and x."""
    x = start.flatten().tolist()
    z, v = list(x), [0.0] * len(x)
    y = list(x)
    weights, largest = 0.0, 0.0
    for t, (grad, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        largest = max(largest, lr)
        weights += largest**2
        c = largest**2 / weights
        for i, g in enumerate(grad.double().flatten().tolist()):
            y[i] = (1 - b1) * z[i] + b1 * x[i]
            v[i] = b2 * v[i] + (1 - b2) * g * g
            z[i] -= lr * (g / (math.sqrt(v[i] / (1 - b2**t)) + eps) + decay * y[i])
            x[i] = (1 - c) * x[i] + c * z[i]
            y[i] = (1 - b1) * z[i] + b1 * x[i]
    y, z, x = (torch.tensor(s, dtype=torch.float64).view_as(start) for s in (y, z, x))
    return y, z, x


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_equals_the_paper_s_algorithm(decay: str) -> None:
    """Trained, evaluated and stepped weights are the literal loop's y, x and z."""
    infos = [info("matrix", 4, 3), info("bank", 2, 3, 4), info("gain", 5), info("scalar")]
    before, grads = starts(infos), gradients(infos, len(RATES))
    factory = ScheduleFreeAdamW(
        OptimizerSite(), betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2, decay=decay
    )  # type: ignore[arg-type]
    optimizer = drive(factory, infos, RATES, grads)
    expected = []
    for i, start in enumerate(before):
        share = 0.2 if decay == "all" or start.ndim > 1 else 0.0
        rows = [row[i] for row in grads]
        expected.append(reference(start, rows, RATES, 0.8, 0.9, 1e-6, share))
    close(infos, [y for y, _, _ in expected])
    with factory.evaluating(optimizer):
        close(infos, [x for _, _, x in expected])
    for each, (_, z, _) in zip(infos, expected, strict=True):
        kept = optimizer.state[each.parameter]["z"].double()
        torch.testing.assert_close(kept, z, rtol=1e-5, atol=1e-6)


def test_evaluating_leaves_no_trace() -> None:
    """After it, even after an error within it, each bit and each state is as it was."""
    infos = [info("matrix", 4, 3), info("gain", 5), info("idle", 2)]
    factory = ScheduleFreeAdamW(OptimizerSite())
    optimizer = factory.make(infos, lr=0.1, device=CPU)
    with factory.evaluating(optimizer):  # before the first step there is nothing to exchange
        assert not optimizer.state
    for row in gradients(infos[:2], 5):
        for each, grad in zip(infos[:2], row, strict=True):
            each.parameter.grad = grad
        optimizer.step()
    before = [i.parameter.detach().clone() for i in infos]
    with contextlib.suppress(KeyError), factory.evaluating(optimizer):
        assert not torch.equal(infos[0].parameter, before[0])
        assert torch.equal(infos[2].parameter, before[2])
        raise KeyError
    assert all(torch.equal(i.parameter, b) for i, b in zip(infos, before, strict=True))
    assert all("y" not in state for state in optimizer.state.values())


def test_the_first_average_is_the_first_step() -> None:
    """After one step all three sequences are one."""
    each = info("matrix", 3, 3)
    factory = ScheduleFreeAdamW(OptimizerSite())
    optimizer = drive(factory, [each], [0.1], gradients([each], 1))
    z = optimizer.state[each.parameter]["z"]
    assert torch.equal(each.parameter, z)
    with factory.evaluating(optimizer):
        torch.testing.assert_close(each.parameter.detach(), z)


def test_a_warmup_hardly_counts_in_the_average() -> None:
    """Steps at a hundredth of the peak weigh ten thousand times less."""
    each = info("matrix", 3, 3)
    factory = ScheduleFreeAdamW(OptimizerSite(), betas=(0.9, 0.9))
    optimizer = drive(factory, [each], [1e-5, 1e-5, 1e-3], gradients([each], 3))
    state = optimizer.state[each.parameter]
    assert state["weights"] == pytest.approx(1e-6 + 2e-10)
    with factory.evaluating(optimizer):
        torch.testing.assert_close(each.parameter.detach(), state["z"], rtol=0, atol=1e-6)
