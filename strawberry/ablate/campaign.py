"""A campaign: sweeps over the same validation text, with verdicts corrected for all of them.

The k-th question of a campaign spends `share(k)` of alpha. The shares of all possible questions sum
to 1, so the chance of any false finding in the whole campaign is at most alpha (alpha spending;
Bonferroni's inequality). This needs no independence: the questions of a campaign share their
validation text, and usually their baseline.

A question whose cells all differ passes its share on to the next one: online fallback (Tian and
Ramdas 2021, arXiv 1910.04900). Before the first false finding, only true differences have passed on
their share, so the sum over the others is still at most alpha. Alpha investing (Foster and Stine
2008) would earn more alpha back, but bounds a different rate. ADDIS spending would drop questions
by p-value, but needs independence.

The noise of earlier questions counts in later ones (`fit`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from strawberry.ablate.extra import needs
from strawberry.ablate.noise import Prior
from strawberry.runs.ledger import ANSWER, OPENING, QUESTION, Ledger

MAIN: Final = "main"
"""The default campaign."""
NONE: Final = "none"
"""The campaign name for no correction."""
FIRST: Final = 0.5
"""The share of alpha that a campaign's first question spends."""
POWER: Final = 1.3
"""Exponent by which later shares decrease with their number."""
_REST: Final = 2.9319492
"""The sum of `k ** -POWER` over k = 2, 3, ..."""
LEAST: Final = 4
"""Number of earlier questions with known noise that the prior needs."""


@dataclass(frozen=True, slots=True)
class Question:
    """The subject of a sweep.

    Attributes:
        data: digest of the validation text.
        content: digest of everything that is compared; seeds don't change it.
        seeds: number of seeds, or `auto` and their maximum.
        comparisons: number of cells without the baseline.
        regime: digest of the settings that must agree for noises to be comparable.
        tables: number of a suite's tables, which are one question and divide its alpha.
    """

    data: str
    content: str
    seeds: str
    comparisons: int
    regime: str
    tables: int = 1


def share(index: int) -> float:
    """The share of alpha of question `number`, counted from 1; all shares sum to 1."""
    return FIRST if index <= 1 else (1 - FIRST) * index**-POWER / _REST


def ask(ledger: Ledger, campaign: str, question: Question, **more: Any) -> dict[str, Any]:
    """The ledger's entry of a question, new or known.

    The same question with the same seeds, or fewer, is already recorded. With more seeds it keeps
    its number, but is another look at the data, with its own share.

    Args:
        ledger: the ledger of the folder that contains the sweeps.
        campaign: its name; `NONE` for no correction, which is recorded too.
        question: the question.
        more: further entries: the sweep's folder, the plan's digest, alpha.

    Raises:
        StrawberryError: the ledger can't be read or written.
    """
    with ledger.held():
        entry = foreseen(ledger, campaign, question)
        if "when" in entry:
            return entry
        return ledger.add(QUESTION, **{k: v for k, v in entry.items() if k != "kind"}, **more)


def foreseen(
    ledger: Ledger,
    campaign: str,
    question: Question,
    before: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The entry that `ask` would return; a new one has no date and command.

    Args:
        ledger: as of `ask`; nothing is written.
        campaign: as of `ask`.
        question: as of `ask`.
        before: entries that are not in the ledger yet.

    Raises:
        StrawberryError: the ledger can't be read.
    """
    read, damaged = ledger.read()
    entries = [*read, *map(dict, before)]
    asked = [e for e in entries if e["kind"] == QUESTION and e["data"] == question.data]
    mine = [e for e in asked if e.get("campaign") == campaign]
    same = [e for e in mine if e.get("question") == question.content]
    for entry in same:
        if _seeds(entry["seeds"]) >= _seeds(question.seeds):
            return entry
    index = 1 + damaged + max([len(mine), *(e["index"] for e in mine)])
    number = 1 + damaged + len({e.get("question") for e in mine})
    # The tables of a suite may be of unlike noise, so that none of them has the others' prior.
    alone = campaign != NONE and question.tables == 1
    prior = fit(_noises(entries, campaign, question)) if alone else None
    return {
        "kind": QUESTION,
        "campaign": campaign,
        "data": question.data,
        "question": question.content,
        "seeds": question.seeds,
        "number": same[0]["number"] if same else number,
        "look": 1 + len(same),
        "index": index,
        "share": 1.0 if campaign == NONE else share(index) + _handed_on(entries, mine, index),
        "asked": len({e.get("question") for e in asked} - {question.content}) + damaged,
        "opened": sum(e["kind"] == OPENING and e.get("val") == question.data for e in entries),
        "prior": None if prior is None else [prior.variance, prior.freedom],
        "comparisons": question.comparisons,
        "tables": question.tables,
    }


def answer(
    ledger: Ledger,
    entry: Mapping[str, Any],
    question: Question,
    noise: tuple[float, int],
    table: str = "",
    *,
    decided: bool = False,
) -> None:
    """Record the result of a question.

    Args:
        ledger: the ledger of the question.
        entry: what `ask` returned.
        question: the question.
        noise: noise of its runs: the variance of a run, and its degrees of freedom.
        table: the sweep's folder, since a suite's tables answer one question each for itself.
        decided: whether every cell differs, so that its share is passed on.
    """
    known = {"campaign": entry["campaign"], "data": entry["data"], "question": entry["question"],
             "seeds": entry["seeds"], "regime": question.regime, "noise": list(noise),
             "index": entry["index"], "table": table, "decided": decided}  # fmt: skip
    with ledger.held():
        entries, _ = ledger.read()
        if not any(e["kind"] == ANSWER and known.items() <= e.items() for e in entries):
            ledger.add(ANSWER, **known)


def prior_of(entry: Mapping[str, Any] | None) -> Prior | None:
    """The prior noise that an entry records."""
    prior = None if entry is None else entry.get("prior")
    return None if prior is None else Prior(float(prior[0]), float(prior[1]))


def fit(noises: Sequence[tuple[float, float]]) -> Prior | None:
    """The prior noise of a campaign's cells, and its spread; None with fewer than `LEAST` noises.

    Uses moments of the logarithms of variances (Smyth 2004, section 6.2). The degrees of freedom
    are at most half of those measured, because noises may look alike by luck. They are rounded down
    to a power of two.

    Args:
        noises: variances, and their degrees of freedom.
    """
    known = [(v, f) for v, f in noises if v > 0 and f > 0]
    if len(known) < LEAST:
        return None
    special = needs("scipy.special")
    variance, freedom = np.array(known, dtype=np.float64).T
    half = freedom / 2
    logs = np.log(variance) - special.digamma(half) + np.log(half)
    beyond = float(logs.var(ddof=1) - special.polygamma(1, half).mean())
    most = float(freedom.sum() / 2)
    own = most if beyond <= 0 else min(most, 2 * _inverse_trigamma(beyond))
    own = float(2 ** max(0, math.floor(math.log2(own))))
    center = math.exp(float(logs.mean()) + float(special.digamma(own / 2)) - math.log(own / 2))
    return Prior(center, own)


def _handed_on(
    entries: Sequence[Mapping[str, Any]], mine: Sequence[Mapping[str, Any]], index: int
) -> float:
    """The share of the previous question of the campaign, if all of it was decided; else 0."""
    before = next((e for e in mine if e["index"] == index - 1), None)
    if before is None:
        return 0.0
    whose = {name: before[name] for name in ("campaign", "data", "index")}
    answers = [e for e in entries if e["kind"] == ANSWER and whose.items() <= e.items()]
    whole = len({e.get("table") for e in answers}) >= before.get("tables", 1)
    decided = bool(answers) and whole and all(e["decided"] for e in answers)
    return float(before["share"]) if decided else 0.0


def _seeds(text: str) -> int:
    """The maximum number of seeds of a question."""
    return int(str(text).split()[-1])


def _noises(
    entries: Sequence[Mapping[str, Any]], campaign: str, question: Question
) -> list[tuple[float, float]]:
    """The latest noise of each of a campaign's earlier questions."""
    noises = {
        e.get("question"): e["noise"]
        for e in entries
        if e["kind"] == ANSWER
        and (e.get("campaign"), e["data"]) == (campaign, question.data)
        and e.get("regime") == question.regime
        and e.get("question") != question.content
    }
    return [(float(variance), float(freedom)) for variance, freedom in noises.values()]


def _inverse_trigamma(value: float) -> float:
    """The x whose trigamma is `value` (Newton's method; Smyth 2004, appendix)."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    special = needs("scipy.special")
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x
