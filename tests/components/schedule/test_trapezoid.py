import math
from fractions import Fraction

import pytest

from strawberry.components.schedule.trapezoid import Trapezoid
from tests.components.schedule.sites import site


def seed_rate(s: int, peak: float, floor: float, W: int, N: int, f: str) -> float:
    """The original's schedule, term by term; the constant part's end is exact in rationals."""
    flat = int((1 - Fraction(f)) * N)
    if s < W:
        return peak * (s + 1) / (W + 1)
    if Fraction(s, N) <= 1 - Fraction(f):
        return peak
    if s > N:
        return floor
    ratio = (s - flat) / (N - flat)
    return floor + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (peak - floor)


@pytest.mark.parametrize("f", ["0.0", "0.1", "0.25", "0.3", "0.4", "0.9", "1.0"])
@pytest.mark.parametrize(("W", "N"), [(0, 100), (10, 100), (80, 100), (120, 100), (5, 7), (1, 1)])
def test_equals_the_formula(f: str, W: int, N: int) -> None:
    """Every step of every mix of warm-up, length and cooldown has the formula's rate."""
    schedule = Trapezoid(site(warmup_iters=W, lr_decay_iters=N, cooldown_frac=float(f)))
    for s in range(N + 30):
        expected = seed_rate(s, 3e-3, 3e-4, W, N, f)
        assert schedule(s) == pytest.approx(expected, rel=1e-14), s


def test_warms_up_from_a_fraction_of_the_peak_and_never_from_zero() -> None:
    """The first step has peak / (W + 1), the first step after the warm-up the peak."""
    schedule = Trapezoid(site(warmup_iters=9))
    assert schedule(0) == pytest.approx(3e-4)
    assert schedule(9) == 3e-3


def test_without_a_cooldown_it_jumps_after_the_last_step() -> None:
    """A cooldown of no length leaves the peak through step N, and the floor after it."""
    schedule = Trapezoid(site(cooldown_frac=0.0))
    assert (schedule(100), schedule(101)) == (3e-3, 3e-4)


def test_a_warmup_into_the_cooldown_wins_over_it() -> None:
    """Warm-up steps beyond the constant part still warm up; the cosine takes over in its middle."""
    schedule = Trapezoid(site(warmup_iters=80))
    assert schedule(79) == pytest.approx(3e-3 * 80 / 81)
    assert schedule(80) == pytest.approx(seed_rate(80, 3e-3, 3e-4, 80, 100, "0.4"))
    assert schedule(80) < 3e-3 / 2 + 3e-4


def test_the_constant_part_ends_exactly_where_the_fraction_says() -> None:
    """0.9 of ten steps leaves one constant step, though (1 - 0.9) * 10 is below 1 in floats."""
    schedule = Trapezoid(site(warmup_iters=0, lr_decay_iters=10, cooldown_frac=0.9))
    assert schedule(1) == 3e-3
    assert schedule(2) < 3e-3
    assert schedule(10) == pytest.approx(3e-4)
