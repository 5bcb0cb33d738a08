"""Loss spikes: what counts as one, and how it is reported."""

import math

import pytest

from strawberry.training.spikes import SpikeDetector


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (3.0, "loss 5 is 1.67 times its recent median 3"),
        (0.0, "loss 2 is 2 above its recent median 0"),
        (-1.0, "loss 1 is 2 above its recent median -1"),
    ],
)
def test_a_rise_is_reported_at_any_level(level: float, text: str) -> None:
    """The rise is the same for every median; a ratio is named only where it means something."""
    spike = SpikeDetector([level] * 6).observe(level + 2)
    assert spike is not None
    assert spike.rise == 2
    assert str(spike) == text


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_ignored(bad: float) -> None:
    """It is no spike itself, and later losses are compared with the finite ones before it."""
    detector = SpikeDetector([3.0] * 6 + [bad] * 20)
    assert detector.observe(bad) is None
    assert detector.observe(3.0) is None
    assert detector.observe(9.0) is not None
