"""Sorting tokens by expert and back, against loops."""

import pytest
import torch

from strawberry.components.dispatch import Dispatch
from strawberry.components.routing import ExpertAssignment

N, K, E, C, F = 7, 2, 4, 6, 5


@pytest.fixture
def choice():
    """Two different experts for each token, of which expert 2 is nobody's."""
    generator = torch.Generator().manual_seed(3)
    expert = torch.stack([torch.randperm(3, generator=generator)[:K] for _ in range(N)])
    expert = torch.where(expert == 2, 3, expert)
    gate = torch.rand(N, K, dtype=torch.float64, generator=generator)
    return ExpertAssignment(expert, gate, torch.bincount(expert.flatten(), minlength=E), ())


def test_equals_a_loop(choice):
    """Rows, a matrix for each, and the weighted sum are those of a loop over tokens."""
    x, bank = torch.randn(N, C, dtype=torch.float64), torch.randn(E, F, C, dtype=torch.float64)
    dispatch = Dispatch.of(choice)
    rows = dispatch.rows(x)
    actual = dispatch.combine(dispatch.linear(rows, bank), choice.gate)
    for n in range(N):
        parts = [bank[e] @ x[n] for e in choice.expert[n].tolist()]
        expected = sum(gate * part for gate, part in zip(choice.gate[n], parts, strict=True))

        torch.testing.assert_close(actual[n], expected)
        torch.testing.assert_close(
            dispatch.spread(dispatch.linear(rows, bank))[n], torch.stack(parts)
        )
    chosen = choice.expert.flatten().sort().values.tolist()
    assert dispatch.ends.tolist() == [sum(e <= i for e in chosen) for i in range(E)]


def test_sort_is_the_inverse_of_spread(choice):
    """What was brought to its tokens can be sorted again."""
    dispatch = Dispatch.of(choice)
    rows = torch.randn(N * K, F)

    assert torch.equal(dispatch.sort(dispatch.spread(rows)), rows)


def test_precision(choice):
    """The sum is taken in the gates' precision, and has that of the rows."""
    rows = torch.randn(N * K, F, dtype=torch.bfloat16)
    dispatch = Dispatch.of(choice)
    actual = dispatch.combine(rows, choice.gate)
    expected = (dispatch.spread(rows).double() * choice.gate[..., None]).sum(1)

    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, expected.bfloat16())
