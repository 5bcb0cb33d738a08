"""Division of text into training, validation and an optional locked test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import Field

from strawberry.contracts.data import Split
from strawberry.errors import FieldError

ADVISED = 0.05
"""The suggested fraction of a test split."""
Division: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
HeldBack: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def check_division(data_division: float, test_division: float) -> None:
    """Raise FieldError if the test split would leave no training text."""
    if test_division >= data_division:
        raise FieldError(
            "test_division",
            f"must be less than data_division {data_division:g}, from which it is taken, "
            f"got {test_division:g}",
        )


def divided_text(
    data_division: float, test_division: float, held: Mapping[Split, str | None] | None = None
) -> str:
    """The division of text, in words; `held` names the text of a split that has its own."""
    own = held or {}
    val, test = own.get("val"), own.get("test")
    if val is None and test is None:
        train, rest = data_division - test_division, 1 - data_division
        if not test_division:
            return f"train {train:.3g}, val {rest:.3g}; no test split (test_division: {ADVISED})"
        return f"train {train:.3g}, val {rest:.3g}, test {test_division:.3g} (locked)"
    val = val or f"{1 - data_division:.3g}"
    test = test or (f"{test_division:.3g}" if test_division else "")
    return f"val {val}, " + (f"test {test} (locked)" if test else "no test split")
