import math

import pytest

from strawberry.components.schedule.trapezoid import Trapezoid
from strawberry.components.schedule.wsd import WSD
from tests.components.schedule.sites import site

SHORT = {"learning_rate": 9.0, "min_lr": 1.0, "warmup_iters": 2, "lr_decay_iters": 8}


@pytest.mark.parametrize(
    ("decay", "cooldown"),
    [
        ("linear", [7.0, 5.0, 3.0]),
        ("sqrt", [5.0, 1 + 8 * (1 - math.sqrt(0.5)), 1 + 8 * (1 - math.sqrt(0.75))]),
        ("cosine", [1 + 4 * (1 + math.sqrt(0.5)), 5.0, 1 + 4 * (1 - math.sqrt(0.5))]),
    ],
)
def test_table(decay: str, cooldown: list[float]) -> None:
    """Two warm-up steps, the peak to step 4, four steps of cooldown: numbers worked out by hand."""
    schedule = WSD(site(**SHORT, cooldown_frac=0.5), decay=decay)  # type: ignore[arg-type]
    expected = [3.0, 6.0, 9.0, 9.0, 9.0, *cooldown, 1.0, 1.0]
    assert [schedule(s) for s in range(10)] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("f", [0.0, 0.1, 0.3, 0.4, 0.9, 1.0])
@pytest.mark.parametrize(("W", "N"), [(0, 100), (10, 100), (80, 100), (120, 100), (5, 7), (1, 1)])
def test_with_a_cosine_it_is_the_trapezoid(f: float, W: int, N: int) -> None:
    """Every step of every mix of warm-up, length and cooldown is the trapezoid's, bit for bit."""
    place = site(warmup_iters=W, lr_decay_iters=N, cooldown_frac=f)
    schedule, trapezoid = WSD(place, decay="cosine"), Trapezoid(place)
    assert [schedule(s) for s in range(N + 30)] == [trapezoid(s) for s in range(N + 30)]


@pytest.mark.parametrize("decay", ["linear", "sqrt"])
def test_without_a_cooldown_it_is_a_warmup_alone(decay: str) -> None:
    """With no cooldown the peak holds through the last step; the floor is after it."""
    schedule = WSD(site(**SHORT, cooldown_frac=0.0), decay=decay)  # type: ignore[arg-type]
    assert [schedule(s) for s in range(10)] == [3.0, 6.0, *[9.0] * 7, 1.0]


@pytest.mark.parametrize("decay", ["linear", "sqrt"])
def test_a_warmup_into_the_cooldown_wins_over_it(decay: str) -> None:
    """The cooldown is found in its middle when the warm-up ends, as if it had begun in time."""
    place = site(**{**SHORT, "warmup_iters": 6}, cooldown_frac=0.5)
    late, timely = WSD(place, decay=decay), WSD(site(**SHORT, cooldown_frac=0.5), decay=decay)  # type: ignore[arg-type]
    assert [late(s) for s in range(6)] == [9.0 * (s + 1) / 7 for s in range(6)]
    assert [late(s) for s in range(6, 10)] == [timely(s) for s in range(6, 10)]


def test_a_cooldown_alone_falls_from_the_first_step() -> None:
    """With neither warm-up nor constant part, step 0 has the peak and each next one less."""
    fields = {**SHORT, "warmup_iters": 0, "lr_decay_iters": 4}
    schedule = WSD(site(**fields, cooldown_frac=1.0), decay="linear")
    assert [schedule(s) for s in range(6)] == [9.0, 7.0, 5.0, 3.0, 1.0, 1.0]


def test_the_square_root_is_steep_at_first() -> None:
    """Halfway through the cooldown, less of the peak is left than on a straight line."""
    place = site(**SHORT, cooldown_frac=0.5)
    assert WSD(place, decay="sqrt")(6) < WSD(place, decay="linear")(6)
