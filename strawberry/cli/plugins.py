"""`strawberry plugins`: list plugins, what they provide, and their problems."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from strawberry.cli import context
from strawberry.cli.console import console, print_json, show, table
from strawberry.cli.options import Json
from strawberry.cli.overview import VERBS
from strawberry.plugin import PluginRecord

_STYLES = {"ok": "green", "broken": "bold red", "incompatible": "bold red", "disabled": "yellow"}


def command(
    json: Json = False,
) -> None:
    """List plugins and their problems.

    Shows for each plugin: distribution and version, supported plugin API, load state and time,
    components, commands, hooks, file, and full errors.
    """
    plugins = context.plugins(quiet=True)
    if json:
        records = [_as_dict(record) for record in plugins.records]
        print_json({"plugins": records, "warnings": plugins.warnings})
        return
    out = console()
    for record in plugins.records:
        _show(record, out)
    unusable = {line for line in plugins.warnings if "`strawberry plugins`" in line}
    for line in plugins.warnings:
        if line not in unusable:
            out.print(Text(f"note: {line}", style="yellow"), soft_wrap=True)
    if not plugins.records:
        out.print("no plugins")


def _show(record: PluginRecord, out: Console) -> None:
    origin = f"{record.distribution} {record.version}".strip() or "local file"
    head = Text.assemble(
        (record.name, "bold"), "  ", origin, "  ", (record.status, _STYLES[record.status])
    )
    if record.status == "ok" or record.api:
        head.append(f"  API {record.api or 'not stated'}")
    if record.status != "disabled":
        head.append(f"  {record.seconds:.3f} s", style="dim")
    out.print(head, soft_wrap=True)
    if record.file or record.module:
        out.print(Text(f"  {record.file or record.module}", style="dim"), soft_wrap=True)
    rows = table("", "")
    rows.show_header = False
    rows.columns[0].style = "cyan"
    if record.kinds:
        rows.add_row("kinds", ", ".join(kind.name for kind in record.kinds))
    for kind, entries in groupby(record.entries, key=lambda entry: entry.kind):
        rows.add_row(kind, ", ".join(entry.name for entry in entries))
    for command in record.commands:
        taken = f" (unreachable: {command.name} is a command of Strawberry)"
        rows.add_row(
            "command", f"{command.name}: {command.help}{taken if command.name in VERBS else ''}"
        )
    hooks = [
        hook for hook in record.hooks if hook not in ("strawberry_kinds", "strawberry_register")
    ]
    if hooks:
        rows.add_row("hooks", ", ".join(hooks))
    if rows.row_count:
        show(Padding(rows, (0, 0, 0, 2)), out)
    if record.status in ("broken", "incompatible"):
        out.print(Text(f"  {record.error}", style="red"), soft_wrap=True)
        for line in record.traceback.rstrip().splitlines():
            out.print(Text(f"    {line}", style="dim"), soft_wrap=True)
    for note in record.notes:
        out.print(Text(f"  note: {note}", style="yellow"), soft_wrap=True)
    out.print()


def _as_dict(record: PluginRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "api": record.api,
        "status": record.status,
        "error": record.error,
        "traceback": record.traceback,
        "seconds": round(record.seconds, 6),
        "module": record.module,
        "file": str(record.file) if record.file else None,
        "kinds": [kind.name for kind in record.kinds],
        "components": [
            {"kind": entry.kind, "name": entry.name, "target": entry.where}
            for entry in record.entries
        ],
        "commands": [
            {"name": command.name, "target": command.where, "help": command.help}
            for command in record.commands
        ],
        "hooks": record.hooks,
        "notes": record.notes,
    }
