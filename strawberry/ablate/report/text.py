"""The report as text: its columns and sentences, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from strawberry.ablate.factors import Effect
from strawberry.ablate.record import Record
from strawberry.ablate.report.outlook import lines as outlook
from strawberry.ablate.report.table import CellRow, ResultTable
from strawberry.ablate.seeds import sentence
from strawberry.ablate.spread import LAST
from strawberry.ablate.statistics import Comparison
from strawberry.figures import MISSING, number, short


def chance(p: float) -> str:
    """Format a p-value; a small one with its first digits."""
    return number(p, 3) if not p < SMALL else f"{p:.1e}"


SMALL = 0.0005
"""Smaller p-values have no digit among the first three decimals."""


def interval(c: Comparison | None) -> str:
    """The interval of a difference."""
    if c is None or not math.isfinite(c.low):
        return MISSING
    return f"{c.low:+.4f} .. {c.high:+.4f}"


COLUMNS: dict[str, Callable[[CellRow], str]] = {
    "cell": lambda r: r.name,
    "seeds": lambda r: f"{len(r.values)}/{r.planned}",
    "mean": lambda r: number(r.summary.mean),
    "sd": lambda r: number(r.summary.deviation),
    "difference": lambda r: number(r.comparison.difference, sign=True) if r.comparison else MISSING,
    "windows": lambda r: number(r.windows),
    "interval": lambda r: interval(r.comparison),
    "p": lambda r: chance(r.comparison.corrected) if r.comparison else MISSING,
    "detectable": lambda r: number(r.comparison.detectable) if r.comparison else MISSING,
    "verdict": lambda r: r.verdict,
    "bits/byte": lambda r: number(r.bits_per_byte),
    "steps to loss": lambda r: f"{r.speedup:.2f}x" if r.speedup is not None else "never",
    "params": lambda r: short(r.cell["budget"]["parameters"]),
    "active": lambda r: short(r.cell["budget"]["active_parameters"]),
    "FLOP/token": lambda r: short(r.cell["budget"]["flops_per_token"]),
    "cache": lambda r: short(r.cell["budget"]["cache_bytes"]) + "B",
    "tokens": lambda r: short(r.cell["budget"]["tokens"]),
    "tuning": lambda r: str(r.cell["tuning_trials"]),
    "tokens/s": lambda r: short(r.tokens_per_second),
}
"""The columns of the ranked table."""


EFFECTS: dict[str, Callable[[Effect], str]] = {
    "effect": lambda e: e.name,
    "against": lambda e: ", ".join(e.against),
    "over": lambda e: f"{e.over} x {e.comparison.n}",
    "difference": lambda e: number(e.comparison.difference, sign=True),
    "interval": lambda e: interval(e.comparison),
    "p": lambda e: number(e.comparison.corrected, 3),
    "detectable": lambda e: number(e.comparison.detectable),
    "verdict": lambda e: e.comparison.verdict,
}
"""The columns of the table of a grid's factors."""
FACTORS = (
    "Effects of the grid's factors over all levels of the other factors (cells x seeds), "
    "main effects first. An interaction is the change of one level's effect with the other "
    "level. Main effects, interactions and cells are three families, each with its own alpha."
)


def shown(table: ResultTable) -> dict[str, Callable[[CellRow], str]]:
    """The columns in which some row has a value."""
    return {
        name: make
        for name, make in COLUMNS.items()
        if any(make(row) != MISSING for row in table.rows)
    }


def notes(record: Record, table: ResultTable) -> list[str]:
    """The meaning of the table, and the noise that it leaves out."""
    plan = record.content["plan"]
    unlike = f"even if one cell's noise is {table.ratio:g} times another's"
    if table.campaign.get("prior"):
        unlike = "even if cells' noises differ as much as those of the campaign's earlier questions"
    lines = [
        *table.standing,
        f"`{table.measure}`, {'higher' if table.higher_is_better else 'lower'} is better; "
        f"baseline: {table.baseline}. Differences are of pairs with equal seeds. All cells "
        f"together estimate the noise, {unlike}. All intervals hold together with probability "
        f"{100 * (1 - table.alpha):.5g}%. The chance of any false finding in the table is at "
        f"most {table.alpha:.4g}.",
        f"A difference of {number(table.effect)} ({plan['effect']:.2%} of the baseline) "
        "matters. `equivalent`: the interval lies within it. `detectable`: the smallest true "
        "difference that these seeds find with a chance of 80 %. `no evidence`: that is less "
        "than what matters; `under-powered`: it is more.",
        "`steps to loss`: the baseline's steps to its last value, divided by this cell's.",
    ]
    if table.looks > 1:
        lines.append(f"Seeds were added: {table.looks} looks share the alpha of {table.alpha:.4g}.")
    if plan["match"] != "none":
        lines.append(f"Widths were chosen so that cells agree in {plan['match']} within 1 %.")
    for row in table.rows:
        if row.cell["resized"]:
            lines.append(f"{row.name}: {row.cell['resized']}")
        if row.cell["tuned"]:
            chosen = ", ".join(f"{k}={v}" for k, v in row.cell["tuned"].items())
            lines.append(f"{row.name}: tuned to {chosen}, with separate seeds")
        lines += [f"{row.name}: WARNING: {warning}" for warning in row.cell["warnings"]]
    return lines


def intervals_of(table: ResultTable) -> str:
    """The noise that the table's intervals cover; stands above the table."""
    return f"Intervals cover the noise of seeds. {sentence(table.vary_seed)}"


def noise(table: ResultTable) -> list[str]:
    """The sources of noise: standard deviations of one run's metric."""
    s = table.spread
    lines = []
    if s.seeds is not None:
        lines.append(
            f"Noise of seeds: {number(s.seeds)}, the standard deviation of a run after cell "
            f"and seed effects ({s.freedom} degree{'s' * (s.freedom > 1)} of freedom)."
        )
    if s.jitter is not None:
        lines.append(
            f"Noise of evaluations: {number(s.jitter)}, around a parabola through a run's "
            f"last {LAST}; the noise of seeds includes it."
        )
    if s.rows is not None:
        lines.append(
            f"Noise of rows: {number(s.rows)}, `val_loss_se`. All cells are evaluated on the "
            "same rows. A difference has this noise only where cells differ in which rows "
            "they find hard."
        )
    lines += _windows(table)
    if len(s.averaged) > 1:
        lasts = ", ".join(map(str, s.averaged))
        each = ", ".join(number(deviation) for deviation in s.averaged.values())
        lines.append(
            f"With the mean of a run's last {lasts} evaluations as the metric, the noise of seeds "
            f"would be {each}."
        )
    return lines


def _windows(table: ResultTable) -> list[str]:
    """The coverage of the intervals, and the differences with larger noise of windows."""
    known = {row.name: (row.windows, row.comparison.error) for row in table.rows
             if row.windows is not None and row.comparison is not None}  # fmt: skip
    if not known:
        return []
    of, other, more = (
        ("windows of text", "text", "A larger `train.eval_iters` helps")
        if table.metric == "val_loss"
        else ("items", "items", "More items help")
    )
    lines = [
        f"Intervals and verdicts are about other seeds on the same {of}. `windows` is the standard "
        f"error of a difference for other {other} of this kind, from pairs of "
        f"{of.partition(' ')[0]}; no interval includes it."
    ]
    larger = {n: both for n, both in known.items() if both[0] > both[1]}
    if larger:
        worst = max(larger, key=lambda name: larger[name][0])
        lines.append(
            f"{of.partition(' ')[0].capitalize()} are the larger noise in {len(larger)} of "
            f"{len(known)} differences, such as {worst}: {number(larger[worst][0])} from them, "
            f"{number(larger[worst][1])} from seeds. {more} there more than more seeds do."
        )
    return lines


def gone(table: ResultTable) -> list[tuple[str, str]]:
    """Failed, skipped and pruned cells; nothing is dropped silently."""
    failures = [
        (
            " ".join(filter(None, [f.cell, f.label, f"seed {f.seed}"])),
            f"{f.status}: {f.error.splitlines()[0] if f.error else ''}",
        )
        for f in table.failures
    ]
    failures += [(name, f"skipped: {why}") for name, why in table.skipped.items()]
    failures += [(name, f"pruned: {why}") for name, why in table.pruned.items()]
    return failures


def patches(record: Record) -> list[tuple[str, str]]:
    """The changes of each cell to the recipe."""
    return [
        (
            cell["name"],
            ", ".join(f"{k} = {_show(v)}" for k, v in cell["patch"].items()) or "nothing",
        )
        for cell in record.content["cells"]
    ]


def _show(value: Any) -> str:
    return str(value) if not isinstance(value, dict) else ", ".join(
        f"{k}: {v}" for k, v in value.items()
    )  # fmt: skip


def markdown(record: Record, table: ResultTable, pictures: Mapping[str, str] | None = None) -> str:
    """The whole report as Markdown, around the ranked table.

    `pictures` has the title of each picture, by its path from the report.
    """
    head = [f"# Ablation of {record.content['name']}", "", intervals_of(table), ""]
    factors = []
    if table.effects:
        factors = ["## Factors", "", *_lines(EFFECTS, table.effects), "", f"- {FACTORS}", ""]
        factors += ["## Cells against the baseline", ""]
    parts = [
        *head,
        *factors,
        *_lines(shown(table), table.rows),
        "",
        *(f"- {note}" for note in notes(record, table)),
        "",
    ]
    for path, title in (pictures or {}).items():
        parts += [f"![{title}]({path})", ""]
    parts += ["## Noise", ""] if noise(table) else []
    parts += [*(f"- {line}" for line in noise(table)), ""]
    if table.forecast is not None:
        parts += ["## What seeds would show", ""]
        parts += [*(f"- {line}" for line in outlook(table.forecast)), ""]
    parts += ["## Not in the table", ""] if gone(table) else []
    parts += [f"- {name}: {why}" for name, why in gone(table)]
    parts += ["", "## Cells", ""]
    parts += [f"- {name}: {change}" for name, change in patches(record)]
    parts += ["", "## Environment", ""]
    parts += [f"- {key}: {value}" for key, value in record.content["environment"].items()]
    parts.append(f"- command: `{record.command}`")
    return "\n".join(parts) + "\n"


def _lines(columns: Mapping[str, Callable[[Any], str]], rows: Sequence[Any]) -> list[str]:
    """A table in Markdown."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [make(row).replace("|", "\\|") for make in columns.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def as_csv(table: ResultTable) -> str:
    """A row for each cell, with unrounded numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    budgets = list(table.rows[0].cell["budget"]) if table.rows else []
    writer.writerow([
        "cell", "verdict", "seeds", "planned", "mean", "sd", "low", "high", "difference",
        "difference_low", "difference_high", "p", "p_corrected", "detectable", "bits_per_byte",
        "speedup", "tokens_per_second", "peak_bytes", *budgets, "tuning_trials", "values",
    ])  # fmt: skip
    for row in table.rows:
        s, c = row.summary, row.comparison
        compared = (
            [c.difference, c.low, c.high, c.p, c.corrected, c.detectable] if c else [None] * 6
        )
        values = " ".join(f"{seed}:{value!r}" for seed, value in row.values.items())
        writer.writerow([
            row.name, row.verdict, s.n, row.planned, s.mean, s.deviation, s.low, s.high, *compared,
            row.bits_per_byte, row.speedup, row.tokens_per_second, row.peak_bytes,
            *row.cell["budget"].values(), row.cell["tuning_trials"], values,
        ])  # fmt: skip
    return out.getvalue()
