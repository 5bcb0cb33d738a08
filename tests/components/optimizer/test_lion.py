import pytest
import torch
from torch import Tensor

from strawberry.components.optimizer.lion import Lion
from strawberry.contracts import OptimizerSite
from tests.components.optimizer.cases import close, drive, gradients, info, starts

RATES = [0.01, 0.03, 0.02, 0.02, 0.005]


def reference(
    start: Tensor, grads: list[Tensor], rates: list[float], b1: float, b2: float, decay: float
) -> Tensor:
    """Algorithm 2 of the Lion paper, number by number, in float64."""
    w = start.flatten().tolist()
    m = [0.0] * len(w)
    for grad, lr in zip(grads, rates, strict=True):
        for i, g in enumerate(grad.double().flatten().tolist()):
            c = b1 * m[i] + (1 - b1) * g
            sign = (c > 0) - (c < 0)
            w[i] -= lr * (sign + decay * w[i])
            m[i] = b2 * m[i] + (1 - b2) * g
    return torch.tensor(w, dtype=torch.float64).view_as(start)


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_equals_the_paper_s_algorithm(decay: str) -> None:
    """Several steps over a matrix, a bank, a vector and a number give the literal loop's."""
    infos = [info("matrix", 4, 3), info("bank", 2, 3, 4), info("gain", 5), info("scalar")]
    before, grads = starts(infos), gradients(infos, len(RATES))
    factory = Lion(OptimizerSite(), betas=(0.8, 0.9), weight_decay=0.2, decay=decay)  # type: ignore[arg-type]
    drive(factory, infos, RATES, grads)
    expected = []
    for i, start in enumerate(before):
        share = 0.2 if decay == "all" or start.ndim > 1 else 0.0
        expected.append(reference(start, [row[i] for row in grads], RATES, 0.8, 0.9, share))
    close(infos, expected)


def test_all_numbers_move_by_the_rate() -> None:
    """Whatever the size of a gradient, the first step is the rate against its sign; zero stays."""
    each = info("gain", 4)
    before = each.parameter.detach().clone()
    drive(Lion(OptimizerSite()), [each], [0.25], [[torch.tensor([1e-8, -3.0, 1e5, 0.0])]])
    moved = torch.tensor([-0.25, 0.25, -0.25, 0.0])
    torch.testing.assert_close(each.parameter.detach() - before, moved)


def test_keeps_one_number_for_each_parameter() -> None:
    """The state of a matrix is its momentum alone."""
    each = info("matrix", 4, 3)
    optimizer = drive(Lion(OptimizerSite()), [each], [0.1], gradients([each], 1))
    assert {k: v.shape for k, v in optimizer.state[each.parameter].items()} == {"momentum": (4, 3)}
