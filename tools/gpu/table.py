"""The results as tables that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(found: Mapping[str, Any]) -> str:
    """Markdown: a table a part, a row a measurement."""
    size = "quick" if found["quick"] else "full"
    state = "" if found["finished"] else ", not finished"
    head = f"{found['began']}, {found['device']}, {size}, {found.get('seconds', 0):.0f} s{state}"
    lines = [head]
    for part in found["parts"].values():
        lines += ["", f"## {part['title']}", "", *_rows(part["rows"])]
    return "\n".join(lines)


def _rows(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["Not reached."]
    done = {name: row for name, row in rows.items() if row.get("row")}
    columns = list(dict.fromkeys(key for row in done.values() for key in row["row"]))
    lines = []
    if done:
        lines += [f"| | {' | '.join(columns)} | s |", "|---" * (len(columns) + 2) + "|"]
    for name, row in done.items():
        cells = [_cell(row["row"].get(column)) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | {row.get('seconds', '')} |")
    told = {name: row for name, row in rows.items() if row["status"] != "done"}
    if done and told:
        lines.append("")
    left = [name for name, row in told.items() if row["status"] == "left"]
    for name, row in told.items():
        if row["status"] != "left":
            place = f" ({row['place']})" if row.get("place") else ""
            lines.append(f"- {row['status']}: {name}: {row.get('error', '')}{place}")
    if left:
        lines.append(f"- no time left for: {', '.join(left)}")
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "/")
