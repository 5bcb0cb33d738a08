import itertools
import math

import pytest

from strawberry.components.schedule.cosine import Cosine
from tests.components.schedule.sites import site


@pytest.mark.parametrize(("W", "N"), [(0, 100), (10, 100), (99, 100), (100, 100), (150, 100)])
def test_equals_the_formula(W: int, N: int) -> None:
    """Warm-up, then half a cosine from step W to step N, then the floor, at every step."""
    schedule = Cosine(site(warmup_iters=W, lr_decay_iters=N))
    for s in range(200):
        if s < W:
            expected = 3e-3 * (s + 1) / (W + 1)
        elif s >= N:
            expected = 3e-4
        else:
            expected = 3e-4 + 0.5 * (1 + math.cos(math.pi * (s - W) / (N - W))) * (3e-3 - 3e-4)
        assert schedule(s) == pytest.approx(expected, rel=1e-14), s


def test_never_rises_after_the_warmup() -> None:
    """The rate falls from the peak to the floor without a bump."""
    schedule = Cosine(site())
    rates = [schedule(s) for s in range(10, 130)]
    assert rates[0] == 3e-3
    assert rates[-1] == 3e-4
    assert all(b <= a for a, b in itertools.pairwise(rates))
