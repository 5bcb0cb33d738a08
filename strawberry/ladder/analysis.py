"""The results for a table of runs: its law, its uncertainty, and its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from strawberry.errors import StrawberryError
from strawberry.ladder.backtest import Backtest, backtests, widths
from strawberry.ladder.draws import COUNT, Draws, draw, interval
from strawberry.ladder.fit import Fit, fit
from strawberry.ladder.gap import Gap, fit_gap
from strawberry.ladder.identify import law_for, notes, untold
from strawberry.ladder.laws import FORMULAS, TERMS
from strawberry.ladder.table import FLOPS, RECURSION, Numbers, Runs
from strawberry.plugin.words import did_you_mean

FACTORS: Final = (10.0, 100.0, 1000.0)
"""Factor of compute over the largest rung at which the answers are given."""


@dataclass(frozen=True)
class Predictions:
    """The losses of sizes, in nats a token: (runs,) each.

    Attributes:
        loss: the curve's.
        low: of the interval that holds nine of ten single runs there.
        high: its other end.
        curve_low: of the interval of the curve itself.
        curve_high: its other end.
    """

    loss: Numbers
    low: Numbers
    high: Numbers
    curve_low: Numbers
    curve_high: Numbers


@dataclass(frozen=True)
class Analysis:
    """A table's fit, and what follows.

    Attributes:
        runs: the table.
        draws: of the fit.
        why: why it is this law.
        tests: what the fit would have said of the largest runs.
        gaps: of each architecture beyond the first, to the first one.
        notes: what a reader has to know.
    """

    runs: Runs
    draws: Draws
    why: str
    tests: list[Backtest]
    gaps: list[Gap] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fit(self) -> Fit:
        """The fit."""
        return self.draws.fit

    def predict(self, asked: Runs) -> Predictions:
        """The losses of sizes; raises StrawberryError for what the law can't say."""
        known = self._known(asked)
        middle = self.fit.law.log_loss(self.fit.vector, known)[0]
        wider = widths(self.fit, self.tests, known)

        def ends(values: Numbers) -> list[Numbers]:
            return [np.exp(middle + wider * (end - middle)) for end in interval(values)]

        return Predictions(
            np.exp(middle), *ends(self.draws.losses(known)), *ends(self.draws.curves(known))
        )

    def _known(self, asked: Runs) -> Runs:
        """Sizes with the numbers of this fit's architectures."""
        law = self.fit.law
        for term in law.terms:
            wanted = RECURSION if term.column == "effective" else (term.column,)
            for name in wanted:
                if name not in asked.columns:
                    raise StrawberryError(
                        f"the law {FORMULAS[law.name]} needs the column {name!r} of each size"
                    )
        names = asked.names
        if len(law.names) == 1 and len(names) == 1:
            names = law.names
        for name in names:
            if name not in law.names:
                raise StrawberryError(
                    f"no architecture {name!r} was fitted; there is {', '.join(law.names)}"
                    f"{did_you_mean(name, law.names)}"
                )
        place = np.array([law.names.index(name) for name in names])[asked.place]
        return Runs(law.names, place, asked.columns, asked.seed, asked.lines)

    def ahead(self, place: int, factors: Sequence[float] = FACTORS) -> Runs:
        """Sizes with this factor of compute over an architecture's largest.

        They have as many tokens a parameter.
        """
        mine = self.runs.take(self.runs.place == place)
        top = mine.take([int(mine.flops.argmax())])
        grown = np.array(factors)
        columns = {
            name: values[0] * (grown if name == "training_flops" else np.sqrt(grown))
            for name, values in top.columns.items()
            if name not in ("loss", "steps")
        }
        if "steps" in top.columns:
            columns["steps"] = np.repeat(top.columns["steps"], len(grown))
        count = len(grown)
        return Runs(self.runs.names, np.repeat(place, count), columns, np.repeat(-1, count))

    def optimal(self, place: int, flops: float) -> tuple[Numbers, Numbers] | None:
        """The parameters and tokens of least loss at a compute, of each draw; None without both.

        The first of each is the fit's own. From setting the derivative of L along 6 N D = C to 0:
        a A / N^a = b B / D^b.
        """
        law = self.fit.law
        if law.name != "size_and_tokens":
            return None
        vectors = np.vstack([self.fit.vector, self.draws.vectors])
        a, b = law.exponent(vectors, 0, place), law.exponent(vectors, 1, place)
        count = len(law.names)
        factors = vectors[:, 1 + place] + a * law.middle[0]
        others = vectors[:, 1 + count + place] + b * law.middle[1]
        log_n = (np.log(a / b) + factors - others + b * np.log(flops / FLOPS)) / (a + b)
        size = np.exp(log_n)
        return size, flops / (FLOPS * size)


def analyse(
    runs: Runs,
    *,
    law: str | None = None,
    shared: bool = False,
    delta: float | None = None,
    count: int = COUNT,
    check: bool = True,
) -> Analysis:
    """Fit a table of runs.

    Args:
        runs: with their losses.
        law: one of `laws.TERMS`; None takes the one that the table allows.
        shared: whether architectures have the same exponents.
        delta: where the Huber loss becomes linear; see `fit`.
        count: draws.
        check: whether the largest runs are left out to see how well the rest tells them.

    Raises:
        StrawberryError: there are too few runs, or they lack what the law needs.
    """
    name, why = law_for(runs) if law is None else (law, "it was asked for")
    _enough(runs, name)
    done = fit(runs, name, shared=shared, delta=delta)
    draws = draw(done, count)
    tests = backtests(done) if check else []
    said = list(notes(draws))
    gaps = []
    for place in range(1, len(runs.names)):
        try:
            gaps.append(fit_gap(draws, 0, place))
        except StrawberryError as error:
            said.append(f"{error}.")
    return Analysis(runs, draws, why, tests, gaps, said)


def _enough(runs: Runs, name: str) -> None:
    """Raises StrawberryError where a law can't be fitted to runs at all."""
    for term in TERMS[name]:
        for column in RECURSION if term.column == "effective" else (term.column,):
            if column not in runs.columns:
                raise StrawberryError(
                    f"the law {FORMULAS[name]} needs the column {column!r} of each run"
                )
    for place, architecture in enumerate(runs.names):
        sizes = len(np.unique(runs.take(runs.place == place).sizes()))
        if sizes < 2:
            who = f" of {architecture}" if len(runs.names) > 1 else ""
            raise StrawberryError(f"there is one size{who}: a curve needs three to be of use")


def to_json(analysis: Analysis, factors: Sequence[float] = FACTORS) -> dict[str, Any]:
    """All of it as JSON."""
    done, law = analysis.fit, analysis.fit.law
    unknown = untold(analysis.draws)
    drawn = law.natural(analysis.draws.vectors)
    parameters = {
        label: {**_ends(drawn[label], float(value)), "told_by_runs": label not in unknown}
        for label, value in law.natural(done.vector).items()
    }
    return {
        "law": FORMULAS[law.name],
        "name": law.name,
        "why": analysis.why,
        "parameters": parameters,
        "runs": len(analysis.runs),
        "sizes": len(np.unique(analysis.runs.sizes())),
        "architectures": list(law.names),
        "left_out_lines": [analysis.runs.lines[i] for i in np.flatnonzero(done.outliers)
                           if analysis.runs.lines],
        "noise": done.noise,
        "delta": done.delta,
        "shared_exponents": law.shared,
        "level": 0.9,
        "draws": len(analysis.draws.vectors),
        "checks": [_test(test) for test in analysis.tests],
        "ahead": [_ahead(analysis, place, factors) for place in range(len(law.names))],
        "gaps": [_gap(gap, factors) for gap in analysis.gaps],
        "notes": analysis.notes,
    }  # fmt: skip


def _ends(draws: Numbers, value: float) -> dict[str, float]:
    low, high = interval(draws)
    return {"value": value, "low": float(low), "high": float(high)}


def _test(test: Backtest) -> dict[str, Any]:
    return {
        "left_out_above": {test.column: test.limit},
        "fitted_runs": test.kept,
        "left_out_runs": test.left,
        "mean_error": test.error,
        "bias": test.bias,
        "intervals_that_held": test.held,
    }


def rows_of(predictions: Predictions) -> list[dict[str, float]]:
    """A row for each size, as JSON."""
    return [
        {"loss": float(loss), "low": float(low), "high": float(high), "curve_low": float(one),
         "curve_high": float(other)}
        for loss, low, high, one, other in zip(
            predictions.loss, predictions.low, predictions.high, predictions.curve_low,
            predictions.curve_high, strict=True)
    ]  # fmt: skip


def _ahead(analysis: Analysis, place: int, factors: Sequence[float]) -> dict[str, Any]:
    sizes = analysis.ahead(place, factors)
    rows = rows_of(analysis.predict(sizes))
    for index, (row, factor) in enumerate(zip(rows, factors, strict=True)):
        flops = float(sizes.flops[index])
        row |= {"factor": factor, "training_flops": flops}
        best = analysis.optimal(place, flops)
        if best is not None:
            row["optimal"] = {  # type: ignore[assignment]
                name: _ends(values[1:], float(values[0]))
                for name, values in zip(("parameters", "tokens"), best, strict=True)
            }
    return {"architecture": analysis.fit.law.names[place], "sizes": rows}


def _gap(gap: Gap, factors: Sequence[float]) -> dict[str, Any]:
    sizes = []
    for factor in (1.0, *factors):
        x = gap.highest + float(np.log(factor))
        gains = gap.gain(x)[:, 0]
        sizes.append({
            "factor": factor,
            "training_flops": float(np.exp(x)),
            "chance_better": float(gap.chance(x)[0]),
            "better": gap.better(x),
            "compute_gain": _ends(gains, float(np.median(gains))),
        })  # fmt: skip
    crossing = gap.crossing(gap.highest + float(np.log(max(factors))))
    return {
        "architecture": gap.names[1],
        "against": gap.names[0],
        "pairs": gap.pairs,
        "sizes": sizes,
        "crossing": None if crossing is None else dict(
            zip(("training_flops", "low", "high"), map(float, np.exp(np.clip(crossing, -700, 700))),
                strict=True)),
    }  # fmt: skip
