"""Sinusoids against their formula."""

import math

import pytest
import torch

import strawberry
from strawberry.components.positional.sinusoidal import Sinusoidal
from strawberry.contracts import PositionalSite
from tests.support import tiny


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids(width):
    """Sine at even, cosine at odd numbers, of the position over base^(2i/C)."""
    found = Sinusoidal(PositionalSite(width, 16), base=100.0, scale=0.5).embed(
        torch.tensor([0, 3, 500])
    )
    for row, position in enumerate((0, 3, 500)):
        for c in range(width):
            angle = position / 100.0 ** (2 * (c // 2) / width)
            expected = 0.5 * (math.sin(angle) if c % 2 == 0 else math.cos(angle))

            assert found[row, c] == pytest.approx(expected, abs=1e-6)


def test_any_length():
    """A model with sinusoids runs past its block size."""
    model = strawberry.build(tiny({"attention": "mha"}, positional="sinusoidal"))

    assert model(torch.zeros(1, 40, dtype=torch.long)).isfinite().all()
