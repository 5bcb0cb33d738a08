import math

import pytest
import torch
from torch import Tensor, nn

from strawberry.components.optimizer.adamw import AdamW
from strawberry.contracts import OptimizerSite, ParameterInfo

CPU = torch.device("cpu")


def info(name: str, *shape: int) -> ParameterInfo:
    parameter = nn.Parameter(
        torch.randn(*shape, generator=torch.Generator().manual_seed(len(name)))
    )
    return ParameterInfo(name, parameter, "vector" if len(shape) < 2 else "matrix")


def reference(
    start: Tensor, grads: list[Tensor], lr: float, b1: float, b2: float, eps: float, decay: float
) -> Tensor:
    """Algorithm 2 of the AdamW paper, number by number, in float64."""
    w = start.double().flatten().tolist()
    m, v = [0.0] * len(w), [0.0] * len(w)
    for t, grad in enumerate(grads, start=1):
        for i, g in enumerate(grad.double().flatten().tolist()):
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g * g
            m_hat, v_hat = m[i] / (1 - b1**t), v[i] / (1 - b2**t)
            w[i] -= lr * m_hat / (math.sqrt(v_hat) + eps) + lr * decay * w[i]
    return torch.tensor(w, dtype=torch.float64).view_as(start)


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_equals_the_paper_s_algorithm(decay: str) -> None:
    """Several steps over a matrix and a vector give the literal loop's numbers."""
    infos = [info("matrix", 4, 3), info("gain", 5)]
    starts = [i.parameter.detach().clone() for i in infos]
    factory = AdamW(OptimizerSite(), betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2, decay=decay)  # type: ignore[arg-type]
    optimizer = factory.make(infos, lr=0.05, device=CPU)
    grads: list[list[Tensor]] = [[], []]
    for step in range(6):
        for i, each in enumerate(infos):
            grad = torch.randn(each.parameter.shape, generator=torch.Generator().manual_seed(step))
            grads[i].append(grad)
            each.parameter.grad = grad.clone()
        optimizer.step()
    for i, each in enumerate(infos):
        share = 0.2 if decay == "all" or each.parameter.ndim > 1 else 0.0
        expected = reference(starts[i], grads[i], 0.05, 0.8, 0.9, 1e-6, share)
        torch.testing.assert_close(each.parameter.double(), expected, rtol=1e-5, atol=1e-6)


def test_vectors_do_not_shrink_unless_asked_to() -> None:
    """With no gradient at work, a gain stays as it is and a matrix shrinks."""
    infos = [info("matrix", 3, 3), info("gain", 3)]
    starts = [i.parameter.detach().clone() for i in infos]
    optimizer = AdamW(OptimizerSite(), weight_decay=0.5).make(infos, lr=0.1, device=CPU)
    for each in infos:
        each.parameter.grad = torch.zeros_like(each.parameter)
    optimizer.step()
    torch.testing.assert_close(infos[0].parameter.detach(), starts[0] * 0.95)
    torch.testing.assert_close(infos[1].parameter.detach(), starts[1])


def test_is_fused_where_the_device_has_it() -> None:
    """On a CPU the fused kernel is used; a meta parameter, which has none, still steps."""
    assert AdamW(OptimizerSite()).make([info("matrix", 2, 2)], lr=0.1, device=CPU).defaults["fused"]
    empty = nn.Parameter(torch.empty(3, 3, device="meta"))
    empty.grad = torch.empty_like(empty)
    made = AdamW(OptimizerSite()).make(
        [ParameterInfo("m", empty, "matrix")], lr=0.1, device=torch.device("meta")
    )
    made.step()
    assert made.state[empty]["exp_avg"].shape == (3, 3)


def test_takes_every_kind_of_parameter() -> None:
    """It claims whatever it is offered, so it can be the last of any list."""
    assert all(
        AdamW(OptimizerSite()).claims(i)
        for i in (info("a", 2, 2), info("b", 3), info("c", 2, 3, 4))
    )
