"""The conformance kit: checks a component, or a recipe's model, against its contract.

`strawberry check` prints the outcomes; `strawberry.testing` makes the checks available to pytest.
"""

from strawberry.check.outcome import CheckResult, Finding, NotApplicable
from strawberry.check.run import checks_for, run, run_one
from strawberry.check.subject import Subject, of_component, of_recipe

__all__ = [
    "CheckResult",
    "Finding",
    "NotApplicable",
    "Subject",
    "checks_for",
    "of_component",
    "of_recipe",
    "run",
    "run_one",
]
