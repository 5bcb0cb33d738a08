"""What an analysis comes to, in sentences and rows for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from strawberry.ablate.report.numbers import short


def parameter_rows(content: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Each parameter of the law, its interval, and where it is from."""
    for label, known in content["parameters"].items():
        low, high = figure(known["low"]), figure(known["high"])
        source = "these runs" if known["told_by_runs"] else "mostly what was expected"
        yield label, figure(known["value"]), f"{low} to {high}", source


def _amount(column: str, value: float) -> str:
    return f"{figure(value)} FLOPs" if column == "training_flops" else f"{short(value)} {column}"


def figure(value: float) -> str:
    """A number in three or four digits."""
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"


def check_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """What the fit would have said of the largest runs."""
    if not content["checks"]:
        yield "NOT CHECKED: too few sizes to leave out the largest and predict it from the rest."
    for test in content["checks"]:
        ((column, limit),) = test["left_out_above"].items()
        yield (
            f"Fitted to the {test['fitted_runs']} runs up to {_amount(column, limit)}: the other "
            f"{test['left_out_runs']} were off by {test['mean_error']:.2%} in the mean "
            f"({test['bias']:+.2%} signed), {test['intervals_that_held']:.0%} of them within "
            "their 90 % interval."
        )


def ahead_rows(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The loss of each architecture at larger sizes, and the best N and D there."""
    for each in content["ahead"]:
        for row in each["sizes"]:
            best = row.get("optimal")
            sizes = (
                [short(best[name]["value"]) for name in ("parameters", "tokens")] if best else []
            )
            yield (
                each["architecture"],
                f"{row['factor']:g}x",
                figure(row["training_flops"]),
                f"{row['loss']:.4f}",
                f"{row['curve_low']:.4f} to {row['curve_high']:.4f}",
                *sizes,
            )


def ahead_columns(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The heads of `ahead_rows`."""
    heads = ("architecture", "compute", "FLOPs", "loss", "90 %")
    both = any("optimal" in row for each in content["ahead"] for row in each["sizes"])
    return (*heads, "best N", "best D") if both else heads


def gap_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """Who is better where, and what that is worth."""
    for gap in content["gaps"]:
        name, other = gap["architecture"], gap["against"]
        yield f"{name} against {other}, by {gap['pairs']} pairs of runs:"
        for row in gap["sizes"]:
            gain = row["compute_gain"]
            where = "at the largest rung" if row["factor"] == 1 else f"at {row['factor']:g}x"
            said = f"{row['better']} is better" if row["better"] else "these rungs can't tell"
            yield (
                f"  {where} ({figure(row['training_flops'])} FLOPs): {said}; {name} is better with "
                f"a chance of {row['chance_better']:.0%}; {other} needs {figure(gain['value'])} "
                f"times the compute for the same loss (90 %: {figure(gain['low'])} to "
                f"{figure(gain['high'])})"
            )
        crossing = gap["crossing"]
        if crossing is not None:
            yield (
                f"  They cross at {figure(crossing['training_flops'])} FLOPs (90 %: "
                f"{figure(crossing['low'])} to {figure(crossing['high'])})."
            )
