import pytest
import torch
from torch import Tensor

from strawberry.components.optimizer.sgd import SGD
from strawberry.contracts import OptimizerSite
from strawberry.errors import FieldError
from tests.components.optimizer.cases import CPU, close, drive, gradients, info, starts

RATES = [0.1, 0.3, 0.2, 0.05]


def reference(
    start: Tensor, grads: list[Tensor], rates: list[float],
    momentum: float, dampening: float, nesterov: bool, decay: float,
) -> Tensor:  # fmt: skip
    """The docstring's equations, number by number, in float64."""
    w = start.flatten().tolist()
    b = [0.0] * len(w)
    for t, (grad, lr) in enumerate(zip(grads, rates, strict=True)):
        for i, g in enumerate(grad.double().flatten().tolist()):
            d = g + decay * w[i]
            b[i] = momentum * b[i] + (1 - dampening if t else 1) * d
            w[i] -= lr * (d + momentum * b[i] if nesterov else b[i])
    return torch.tensor(w, dtype=torch.float64).view_as(start)


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"),
    [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.3, False), (0.9, 0.0, True)],
)
def test_equals_the_equations(momentum: float, dampening: float, nesterov: bool) -> None:
    """Plain, with momentum, dampened and looking ahead: the literal loop's numbers."""
    infos = [info("matrix", 4, 3), info("bank", 2, 3, 4), info("gain", 5), info("scalar")]
    before, grads = starts(infos), gradients(infos, len(RATES))
    factory = SGD(
        OptimizerSite(), momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=0.2
    )
    drive(factory, infos, RATES, grads)
    close(infos, [
        reference(start, [row[i] for row in grads], RATES, momentum, dampening, nesterov,
                  0.2 if start.ndim > 1 else 0.0)
        for i, start in enumerate(before)
    ])  # fmt: skip


def test_without_momentum_nothing_is_kept() -> None:
    """Plain descent has no state."""
    each = info("matrix", 4, 3)
    optimizer = drive(SGD(OptimizerSite(), momentum=0.0), [each], [0.1], gradients([each], 1))
    assert not optimizer.state[each.parameter]


def test_a_first_gradient_may_come_late() -> None:
    """A parameter that had no gradient so far begins its momentum when it has one."""
    first, late = info("first", 3), info("late", 3)
    optimizer = SGD(OptimizerSite()).make([first, late], lr=0.1, device=CPU)
    before = late.parameter.detach().clone()
    first.parameter.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(late.parameter, before)
    late.parameter.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(late.parameter.detach(), before - 0.1)


@pytest.mark.parametrize("fields", [{"momentum": 0.0}, {"dampening": 0.1}])
def test_looking_ahead_needs_plain_momentum(fields: dict[str, float]) -> None:
    """Nesterov's form without momentum, or with dampening, is refused by its field."""
    with pytest.raises(FieldError) as caught:
        SGD(OptimizerSite(), nesterov=True, **fields)
    assert caught.value.field == "nesterov"
