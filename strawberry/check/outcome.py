"""The possible outcomes of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "failed", "skipped"]


class Finding(Exception):  # noqa: N818 (a fault of the component, found)
    """A fault of the component, in a sentence with figures."""


class NotApplicable(Exception):  # noqa: N818 (nothing failed)
    """The reason why a check does not apply."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        check: its name.
        asks: the question that the check answers.
        verdict: `passed`, `failed` or `skipped`.
        detail: the finding, the reason for skipping, or the measurement.
        seconds: time taken.
    """

    check: str
    asks: str
    verdict: Verdict
    detail: str
    seconds: float
