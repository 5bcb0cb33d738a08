import pytest

from strawberry.components.schedule.linear import Linear
from tests.components.schedule.sites import site


def test_table() -> None:
    """Two warm-up steps, four steps down a line, then the floor: numbers worked out by hand."""
    schedule = Linear(site(learning_rate=9.0, min_lr=1.0, warmup_iters=2, lr_decay_iters=6))
    assert [schedule(s) for s in range(9)] == [3.0, 6.0, 9.0, 7.0, 5.0, 3.0, 1.0, 1.0, 1.0]


def test_without_warmup_it_begins_at_the_peak() -> None:
    """No warm-up steps: the line starts at step 0."""
    schedule = Linear(site(learning_rate=5.0, min_lr=1.0, warmup_iters=0, lr_decay_iters=4))
    assert [schedule(s) for s in range(6)] == [5.0, 4.0, 3.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("N", [1, 3, 4])
def test_a_warmup_beyond_the_end_wins(N: int) -> None:
    """Warm-up steps at and after the end still warm up; then comes the floor at once."""
    schedule = Linear(site(learning_rate=5.0, min_lr=1.0, warmup_iters=4, lr_decay_iters=N))
    assert [schedule(s) for s in range(6)] == [1.0, 2.0, 3.0, 4.0, 1.0, 1.0]
