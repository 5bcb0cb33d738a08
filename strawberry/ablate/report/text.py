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
    """A p-value; a small one with its first digits."""
    return number(p, 3) if not p < SMALL else f"{p:.1e}"


SMALL = 0.0005
"""P-values below this have no digit among the first three."""


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
"""The columns of the ranked table, in all of its forms."""


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
    "Effects of the grid's factors over all levels of the others (cells x seeds), main effects "
    "first; an interaction is by how much one level's effect changes with the other level. Main "
    "effects, interactions and cells are three families, each with its own alpha."
)


def shown(table: ResultTable) -> dict[str, Callable[[CellRow], str]]:
    """The columns in which some row has something."""
    return {
        name: make
        for name, make in COLUMNS.items()
        if any(make(row) != MISSING for row in table.rows)
    }


def notes(record: Record, table: ResultTable) -> list[str]:
    """What the table means, and what is not in it."""
    plan = record.content["plan"]
    unlike = f"where one cell's is {table.ratio:g} times another's too"
    if table.campaign.get("prior"):
        unlike = "as unlike as those of the campaign's earlier questions"
    lines = [
        *table.standing,
        f"`{table.measure}`, {'higher' if table.higher_is_better else 'lower'} is better; "
        f"baseline: {table.baseline}. Differences are of pairs with equal seeds. "
        f"Noise is judged by all cells together, {unlike}; all intervals hold together with a "
        f"chance of {100 * (1 - table.alpha):.5g}%, and the chance of any false finding in the "
        f"table is at most {table.alpha:.4g}.",
        f"A difference of {number(table.effect)} ({plan['effect']:.2%} of the baseline) counts as "
        "one that matters: `equivalent` where the interval lies within it. `detectable` is the "
        "smallest true difference that this many seeds find with a chance of 80 %: `no evidence` "
        "where that is less, `under-powered` where it is more.",
        "`steps to loss`: the baseline's steps to its last value over this cell's.",
    ]
    if table.looks > 1:
        lines.append(f"Seeds were added; {table.looks} looks share the {table.alpha:.4g}.")
    if plan["match"] != "none":
        lines.append(f"Widths are chosen so that cells agree in {plan['match']} within 1 %.")
    for row in table.rows:
        if row.cell["resized"]:
            lines.append(f"{row.name}: {row.cell['resized']}")
        if row.cell["tuned"]:
            chosen = ", ".join(f"{k}={v}" for k, v in row.cell["tuned"].items())
            lines.append(f"{row.name}: tuned to {chosen}, on seeds of their own")
        lines += [f"{row.name}: WARNING: {warning}" for warning in row.cell["warnings"]]
    return lines


def intervals_of(table: ResultTable) -> str:
    """Which noise the table's intervals are of; it stands above the table."""
    return f"Intervals are of the noise of seeds. {sentence(table.vary_seed)}"


def noise(table: ResultTable) -> list[str]:
    """Where the noise is: standard deviations of one run's metric."""
    s = table.spread
    lines = []
    if s.seeds is not None:
        lines.append(
            f"Noise of seeds: {number(s.seeds)}, the standard deviation of a run that cells and "
            f"seeds leave of the table ({s.freedom} degree{'s' * (s.freedom > 1)} of freedom)."
        )
    if s.jitter is not None:
        lines.append(
            f"Noise of evaluations: {number(s.jitter)}, about a parabola through a run's last "
            f"{LAST}; it is part of that of seeds."
        )
    if s.rows is not None:
        lines.append(
            f"Noise of rows: {number(s.rows)}, `val_loss_se`. All cells have the same rows, so it "
            "is part of a difference only as far as cells differ in which rows they find hard."
        )
    lines += _windows(table)
    if len(s.averaged) > 1:
        lasts = ", ".join(map(str, s.averaged))
        each = ", ".join(number(deviation) for deviation in s.averaged.values())
        lines.append(f"Were the metric a run's mean of its last {lasts} evaluations, the noise of "
                     f"seeds would be {each}.")  # fmt: skip
    return lines


def _windows(table: ResultTable) -> list[str]:
    """What the intervals cover, and where windows of text are the larger noise."""
    known = {row.name: (row.windows, row.comparison.error) for row in table.rows
             if row.windows is not None and row.comparison is not None}  # fmt: skip
    if not known:
        return []
    lines = ["Intervals and verdicts are about other seeds on the same windows of text. `windows` "
             "is the standard error of a difference for other text of this kind, from pairs of "
             "windows; no interval has it in it."]  # fmt: skip
    larger = {n: both for n, both in known.items() if both[0] > both[1]}
    if larger:
        worst = max(larger, key=lambda name: larger[name][0])
        lines.append(
            f"The windows are the larger noise of {len(larger)} of {len(known)} differences, such "
            f"as {worst}: {number(larger[worst][0])} of windows, {number(larger[worst][1])} of "
            "seeds. A larger `train.eval_iters` tells more of them than more seeds do."
        )
    return lines


def gone(table: ResultTable) -> list[tuple[str, str]]:
    """What failed, was skipped, or was pruned: nothing is dropped in silence."""
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
    """What each cell changes in the recipe."""
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
    """The ranked table and all that belongs to it, as Markdown.

    `pictures` has what each picture shows, by its path from the report.
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
    """A row for each cell, with numbers in full."""
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
