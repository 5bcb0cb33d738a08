"""The results of an analysis, in sentences and rows for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from strawberry.figures import short


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
    """The fit's predictions of the largest runs."""
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
    """The better architecture by size, and its advantage."""
    for gap in content["gaps"]:
        name, other = gap["architecture"], gap["against"]
        yield f"{name} against {other}, by {gap['pairs']} pairs of runs:"
        for row in gap["sizes"]:
            where = "at the largest rung" if row["factor"] == 1 else f"at {row['factor']:g}x"
            said = f"{row['better']} is better" if row["better"] else "these rungs can't tell"
            gain = [f"{row['compute_gain'][end]:.3g}" for end in ("value", "low", "high")]
            yield (
                f"  {where} ({figure(row['training_flops'])} FLOPs): {said} ({name} with a "
                f"chance of {chance(row['chance_better'])}); {other} needs {gain[0]} times the "
                f"compute for the same loss (90 %: {gain[1]} to {gain[2]})"
            )
        crossing = gap["crossing"]
        if crossing is not None:
            yield (
                f"  They cross at {figure(crossing['training_flops'])} FLOPs (90 %: "
                f"{figure(crossing['low'])} to {figure(crossing['high'])})."
            )


def chance(share: float) -> str:
    """A chance that draws tell: not below 1 % or above 99 %."""
    ends = "less than 1 %" if share < 0.5 else "more than 99 %"
    return f"{share:.0%}" if 0.01 <= share <= 0.99 else ends


def rung_rows(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every architecture on every rung, as it is before anything is trained."""
    for rung in content["rungs"]:
        parts = (rung, *rung.get("branches", ()))
        for size in (size for part in parts for size in part["sizes"]):
            yield (
                str(size["rung"] + 1),
                size["architecture"],
                short(size["without_embeddings"]),
                short(size["parameters"]),
                short(size["flops_per_token"]),
                short(size["tokens"]),
                f"{size['training_flops']:.3g}",
                _steps(size),
                f"{size['learning_rate']:.3g}",
            )


def _steps(size: Mapping[str, Any]) -> str:
    """A run's steps; of a branch, its own after those of the run that it leaves."""
    steps, shared = size["optimizer_steps"], size.get("shared_steps", 0)
    return f"{shared} + {steps - shared}" if shared else str(steps)


RUNG_COLUMNS = (
    "rung", "architecture", "params", "with embeddings", "FLOP/token", "tokens", "FLOPs", "steps",
    "rate",
)  # fmt: skip


def held_out_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """What was predicted of the top rungs before they were trained, and what came."""
    rows = content["held_out"] or ()
    counts = {(row["rung"], row["tokens"]) for row in rows}
    several = len(counts) > len({rung for rung, _ in counts})
    for row in rows:
        predicted = f"{row['loss']:.4f} (90 %: {row['low']:.4f} to {row['high']:.4f})"
        what = f"rung {row['rung'] + 1} of {row['architecture']}"
        what += f", {short(row['tokens'])} tokens," if several else ""
        where = f"Held out: {what} was predicted at"
        if row["trained"] is None:
            yield f"{where} {predicted}; it isn't trained yet."
            continue
        holds = "holds" if row["held"] else "does NOT hold"
        yield (
            f"{where} {predicted} and came to {row['trained']:.4f} ({row['seeds']} seeds): off by "
            f"{row['error']:+.2%}, {row['in_half_widths']:.2f} of the interval's half width; the "
            f"interval {holds}."
        )


def recursion_line(content: Mapping[str, Any]) -> Iterator[str]:
    """What a further turn of a recursion is worth."""
    known = content["recursion"]
    if known is not None:
        yield (
            f"A recursion of r turns counts as r^phi times its parameters, phi {known['phi']:.2f} "
            f"(90 %: {known['low']:.2f} to {known['high']:.2f}; 0 is none, 1 is as good as blocks "
            "of their own)."
        )
