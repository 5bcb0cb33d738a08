"""How text is divided: a share for training, one for validation, and one that is held back."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from strawberry.errors import FieldError

ADVISED = 0.05
"""The share to hold back, where somebody asks."""
Division: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
HeldBack: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def check_division(data_division: float, test_division: float) -> None:
    """Raise FieldError where the test split would leave nothing to train on."""
    if test_division >= data_division:
        raise FieldError(
            "test_division",
            f"{test_division:g} of the text is taken from the {data_division:g} that is for "
            "training, and has to be less",
        )


def divided_text(data_division: float, test_division: float) -> str:
    """The division of a text, in words."""
    train, val = data_division - test_division, 1 - data_division
    if not test_division:
        return f"train {train:.3g}, val {val:.3g}; no test split (test_division: {ADVISED})"
    return f"train {train:.3g}, val {val:.3g}, test {test_division:.3g} (locked)"
