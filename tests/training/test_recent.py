import math

import pytest
import torch

from strawberry.contracts.terms import Metric
from strawberry.model.batch import Loss
from strawberry.runs.device import Machine
from strawberry.training.recent import Diverged, RecentSums, all_finite

CPU = Machine(torch.device("cpu"), torch.float32, compiled=False)


def loss(value: float, **metrics: float) -> Loss:
    tensors = {name: Metric((torch.tensor(metric),)) for name, metric in metrics.items()}
    return Loss(torch.tensor(value), torch.tensor(value), tensors)


def test_a_row_is_the_mean_since_the_last_one() -> None:
    """Losses and metrics are averaged over micro-batches; the next row begins anew."""
    recent = RecentSums(CPU)
    for value in (1.0, 2.0, 6.0):
        recent.add(loss(value, balance=2 * value))
    recent.end_step(torch.tensor(0.5))
    row = recent.row(10)
    assert (row["loss"], row["balance"], row["grad_norm"]) == (3.0, 6.0, 0.5)
    assert row["tokens_per_second"] > 0
    recent.add(loss(7.0))
    assert recent.row(10)["loss"] == 7.0


def test_sums_survive_a_checkpoint_bit_for_bit() -> None:
    """Saved between two rows and loaded, the mean is the very same float32."""
    values = [0.1, 0.2, 0.3, 1e-7, 3e7]
    whole, first = RecentSums(CPU), RecentSums(CPU)
    for value in values:
        whole.add(loss(value))
    for value in values[:3]:
        first.add(loss(value))
    second = RecentSums(CPU)
    second.load(first.state())
    for value in values[3:]:
        second.add(loss(value))
    assert second.row(1)["loss"] == whole.row(1)["loss"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_anything_not_finite_is_remembered(value: float) -> None:
    """A loss or a norm that is not finite is found later, however many good ones follow."""
    for place in ("loss", "norm"):
        recent = RecentSums(CPU)
        recent.add(loss(value if place == "loss" else 1.0))
        recent.end_step(torch.tensor(value if place == "norm" else 1.0))
        recent.add(loss(1.0))
        recent.end_step(torch.tensor(1.0))
        with pytest.raises(Diverged, match="step 9"):
            recent.check(9)


def test_all_finite_looks_at_every_floating_tensor() -> None:
    """Scalars and integers are passed over; one bad number anywhere is enough."""
    good = [torch.ones(3), torch.tensor(math.inf), torch.tensor([1])]
    assert all_finite(good)
    assert all_finite([])
    assert not all_finite([*good, torch.tensor([1.0, math.nan])])
