import pytest

from strawberry.components.schedule.inverse_sqrt import InverseSqrt
from tests.components.schedule.sites import site


def test_table() -> None:
    """Three warm-up steps to 4 at step 3, then 4 sqrt(4 / (s + 1)): numbers worked out by hand."""
    schedule = InverseSqrt(site(learning_rate=4.0, min_lr=0.1, warmup_iters=3))
    assert [schedule(s) for s in range(4)] == [1.0, 2.0, 3.0, 4.0]
    assert [schedule(s) for s in (15, 63, 255)] == [2.0, 1.0, 0.5]


@pytest.mark.parametrize("W", [0, 1, 10, 4000])
def test_is_the_paper_s_formula_at_a_scale(W: int) -> None:
    """Counting steps from 1 and the peak as the last of the warm-up, all rates are the paper's."""

    def paper(t: int) -> float:
        return min(t**-0.5, t * (W + 1) ** -1.5)

    schedule = InverseSqrt(site(warmup_iters=W, min_lr=0.0))
    for s in (0, 1, 2, 9, 10, 11, 3999, 4000, 4001, 100_000):
        expected = 3e-3 * paper(s + 1) / paper(W + 1)
        assert schedule(s) == pytest.approx(expected, rel=1e-12), s


def test_stops_at_the_floor_and_takes_no_notice_of_the_end() -> None:
    """From peak / 10 on it stays; nothing happens at lr_decay_iters."""
    schedule = InverseSqrt(site(warmup_iters=0, lr_decay_iters=5))
    assert schedule(5) == pytest.approx(3e-3 / 6**0.5)
    assert schedule(99) == pytest.approx(3e-4)
    assert schedule(1000) == 3e-4
