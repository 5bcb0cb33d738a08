"""The checks of each kind, and how to run them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from strawberry.check import (
    answers,
    averaging,
    coordinates,
    costs,
    curricula,
    dependence,
    device,
    executing,
    forms,
    gradients,
    learning,
    measures,
    optimizing,
    sources,
    tokenizers,
    watching,
)
from strawberry.check.outcome import CheckResult, Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.errors import StrawberryError
from strawberry.plugin.kinds import Kinds
from strawberry.plugin.loader import place
from strawberry.plugin.registry import one_line, resolve
from strawberry.plugin.words import did_you_mean

Check = Callable[[Subject], str]

_MODEL: dict[str, Check] = {
    "shape": forms.shape,
    "bfloat16": forms.bfloat16,
    "future": dependence.future,
    "past": dependence.past,
    "batch": dependence.batch,
    "history": dependence.history,
    "cache": forms.cache,
    "recurrence": forms.recurrence,
    "gradients": gradients.reach,
    "gradcheck": gradients.gradcheck,
    "stability": gradients.stability,
    "determinism": forms.determinism,
    "meta": forms.meta,
    "device": device.model,
    "saved": forms.saved,
    "compile": forms.compiles,
    "counted": costs.counted,
    "memory": costs.memory,
    "speed": costs.speed,
    "learns": learning.learns,
}
_ASKED: dict[str, Check] = {"coordinates": coordinates.coordinates}
"""Checks of a model that run only if they are named: they take long, or most models fail them."""
_OTHERS: dict[str, dict[str, Check]] = {
    "optimizer": {
        "descends": optimizing.descends,
        "moves": optimizing.moves,
        "resumes": optimizing.resumes,
        "device": device.optimizer,
    },
    "averaging": {
        "mean": averaging.mean,
        "shards": averaging.shards,
        "resumes": averaging.resumes,
    },
    "curriculum": {
        "function": curricula.function,
        "bounds": curricula.bounds,
        "puts": curricula.puts,
    },
    "measure": {
        "adds": measures.adds,
        "repeats": measures.repeats,
        "leaves": measures.leaves,
    },
    "schedule": {"range": optimizing.in_range},
    "data": {
        "windows": sources.windows,
        "repeats": sources.repeats,
        "draws": sources.draws,
        "order": sources.in_order,
        "apart": sources.apart,
    },
    "tokenizer": {
        "roundtrip": tokenizers.round_trip,
        "ids": tokenizers.ids,
        "special": tokenizers.special,
        "pieces": tokenizers.pieces,
        "saved": tokenizers.saved,
    },
    "task": {
        "shape": answers.shape,
        "repeats": answers.repeats,
        "exact": answers.exact,
        "varied": answers.varied,
        "room": answers.room,
    },
    "executor": {
        "runs": executing.runs,
        "failures": executing.failures,
        "stops": executing.stops,
    },
    "tracker": {
        "told": watching.told,
        "resumes": watching.resumes,
        "harmless": watching.changes_nothing,
    },
}


def checks_for(kind: str, kinds: Kinds | None = None) -> dict[str, Check]:
    """The checks of a kind of component, or of a `model`, by name and in order.

    A kind of a plugin (one of `kinds`) has its contract checked, and its own checks.
    """
    brought = {row.name: row for row in (kinds.brought if kinds else ())}
    if kind not in brought:
        return _OTHERS.get(kind, _MODEL)
    checks: dict[str, Any] = {"contract": forms.contract}
    for name, target in brought[kind].checks.items():
        checks[name] = resolve(target, f"kind {kind!r}: check {name!r}")
    return checks


def run_one(subject: Subject, name: str) -> CheckResult:
    """Run one check; an exception of the component is a finding, with its location."""
    checks = checks_for(subject.kind, subject.kinds)
    if checks is _MODEL:
        checks = {**checks, **_ASKED}
    if name not in checks:
        near = did_you_mean(name, checks)
        raise StrawberryError(f"unknown check {name!r}{near or '; checks: ' + ', '.join(checks)}")
    check = checks[name]
    asks = (check.__doc__ or "").splitlines()[0]
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of on a CPU is not the author's
            verdict, detail = "passed", check(subject)
    except Finding as finding:
        verdict, detail = "failed", str(finding)
    except NotApplicable as reason:
        verdict, detail = "skipped", str(reason)
    except Exception as error:
        verdict, detail = "failed", f"it raised {one_line(error)}{place(error)}"
    return CheckResult(name, asks, verdict, detail, time.perf_counter() - start)  # type: ignore[arg-type]


def run(subject: Subject, names: Sequence[str] = ()) -> Iterator[CheckResult]:
    """Yield the outcomes of these checks, or of all for the subject's kind.

    Raises:
        RecipeError: the subject can't be built.
        StrawberryError: a check name is unknown.
    """
    # What is wrong with a model is no finding.
    if subject.kind not in ("data", "tokenizer", "task"):
        subject.model()
    for name in names or checks_for(subject.kind, subject.kinds):
        yield run_one(subject, name)
