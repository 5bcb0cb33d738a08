"""A ladder's report: Markdown, the table of its runs, and one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from strawberry.ablate.record import typed
from strawberry.ablate.report.page import behaviour, library, template
from strawberry.files.atomic import write_atomic
from strawberry.ladder import sentences
from strawberry.ladder.charts import colours, ladder_charts
from strawberry.ladder.results import LOUD, Results

TABLE = "runs.csv"


def write_report(results: Results, content: Mapping[str, Any] | None = None) -> list[Path]:
    """Write `report.html`, `report.md` and `runs.csv` into the ladder's folder.

    Args:
        results: the ladder's.
        content: `results.to_json()`, where it is at hand already.
    """
    content = results.to_json() if content is None else content
    folder = results.record.folder
    files = {
        "report.html": page(results, content),
        "report.md": markdown(results, content),
        TABLE: results.record.table(),
    }
    for name, text in files.items():
        write_atomic(folder / name, text)
    return [folder / name for name in files]


def answers(content: Mapping[str, Any]) -> list[str]:
    """What a ladder says, most important first."""
    held = list(sentences.held_out_lines(content))
    return [
        *(held or [LOUD]),
        *sentences.gap_lines(content["fit"]),
        *sentences.recursion_line(content),
        *content["fit"]["notes"],
        *sentences.check_lines(content["fit"]),
    ]


def page(results: Results, content: Mapping[str, Any]) -> str:
    """The whole page."""
    drawn, fitted = ladder_charts(results), content["fit"]
    return template("page.html.j2", "strawberry.ladder").render(
        title=f"Ladder of {content['name']}",
        written=results.record.content["written"],
        seconds=content["seconds"],
        answers=[line.strip() for line in answers(content)],
        warnings=content["warnings"],
        swatches=colours(results.analysis.runs.names),
        charts=drawn,
        branched=any(rung.get("branches") for rung in results.record.rungs),
        ahead_columns=sentences.ahead_columns(fitted),
        ahead=list(sentences.ahead_rows(fitted)),
        law=fitted["law"],
        why=fitted["why"],
        parameters=list(sentences.parameter_rows(fitted)),
        rate=content["learning_rate"],
        rung_columns=sentences.RUNG_COLUMNS,
        rungs=list(sentences.rung_rows(content)),
        runs=list(_runs(results)),
        command=typed(content["command"]),
        table=str(results.record.folder / TABLE),
        library=library(),
        behaviour=behaviour(),
    )


def _runs(results: Results) -> Iterator[tuple[str, ...]]:
    """A row for each run."""
    for row in results.record.rows():
        yield (
            str(row["rung"] + 1),
            row["architecture"],
            str(row["seed"]),
            sentences.figure(row["training_flops"]),
            f"{row['loss']:.4f}",
        )


def markdown(results: Results, content: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    fitted = content["fit"]
    parts = [
        f"# Ladder of {content['name']}",
        "\n".join(f"- {line.strip()}" for line in answers(content)),
        "\n".join(f"- {line}" for line in content["warnings"]),
        "## At larger sizes",
        _table(sentences.ahead_columns(fitted), sentences.ahead_rows(fitted)),
        f"## The law\n\n`{fitted['law']}` ({fitted['why']})",
        _table(("parameter", "value", "90 %", "source"), sentences.parameter_rows(fitted)),
        f"## Rungs\n\n{content['learning_rate']}.",
        _table(sentences.RUNG_COLUMNS, sentences.rung_rows(content)),
        "## Runs",
        _table(("rung", "architecture", "seed", "FLOPs", "loss"), _runs(results)),
        f"## How\n\n    {typed(content['command'])}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
