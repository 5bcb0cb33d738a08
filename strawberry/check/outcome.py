"""What a check can come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "failed", "skipped"]


class Finding(Exception):  # noqa: N818 (a fault of the component, found)
    """What is wrong with the component, in a sentence with its figures."""


class NotApplicable(Exception):  # noqa: N818 (nothing failed)
    """Why a check has nothing to look at here."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check came to.

    Attributes:
        check: its name.
        asks: the question that it answers.
        verdict: `passed`, `failed` or `skipped`.
        detail: the finding, the reason for skipping, or what was measured.
        seconds: time taken.
    """

    check: str
    asks: str
    verdict: Verdict
    detail: str
    seconds: float
