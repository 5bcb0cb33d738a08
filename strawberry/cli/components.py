"""`strawberry components`: list components and their fields."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from strawberry.cli import context
from strawberry.cli.console import console, print_json, show, table
from strawberry.cli.options import Json
from strawberry.errors import PluginError
from strawberry.plugin import LookupFailure, Registry, RegistryEntry
from strawberry.plugin.signature import (
    RecipeField,
    capabilities_of,
    description_of,
    fields_of,
    source_of,
    summary_without_import,
)
from strawberry.plugin.words import did_you_mean


def command(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="A kind, such as attention, ffn or optimizer."),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A component, by its name in recipes.")
    ] = None,
    json: Json = False,
) -> None:
    """List components, or show the fields of one.

    With a name, shows each field with its type, default and meaning, and the source file. With
    --json, the list has these details for every component.
    """
    registry = context.plugins().registry
    if name is None and kind is not None and kind not in registry.kinds:
        kind, name = kind_of(registry, kind), kind
    if kind is not None and name is not None:
        _show(registry.find(kind, name), json=json)
    else:
        _list(registry, kind, json=json)


def kind_of(registry: Registry, word: str) -> str:
    """The kind of the component `word`; if no component has that name, `word` is a kind."""
    entries = registry.entries()
    kinds = sorted({entry.kind for entry in entries if word in (entry.name, entry.full_name)})
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise LookupFailure(
            f"{word!r} exists in several kinds; write {' or '.join(kinds)} before it"
        )
    known = registry.kinds.names
    near = did_you_mean(word, [*known, *(entry.name for entry in entries)])
    raise LookupFailure(
        f"unknown kind or component {word!r}{near or '; kinds: ' + ', '.join(known)}"
    )


def _list(registry: Registry, kind: str | None, *, json: bool) -> None:
    entries = registry.entries(kind)
    if json:
        print_json([_as_dict(registry, entry) | _loaded(entry) for entry in entries])
        return
    if not entries:
        console().print(f"no {kind} is registered" if kind else "no component is registered")
        return
    rows = table("kind", "name", "what", "plugin")
    rows.columns[1].style = "cyan"
    rows.columns[3].style = "dim"
    previous = None
    for entry in entries:
        if previous not in (None, entry.kind):
            rows.add_row()
        shown = "" if entry.kind == previous else entry.kind
        what = summary_without_import(entry.target)
        rows.add_row(shown, registry.short_name(entry), what, entry.plugin)
        previous = entry.kind
    show(rows)


def _as_dict(registry: Registry, entry: RegistryEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": registry.short_name(entry),
        "full_name": entry.full_name,
        "plugin": entry.plugin,
        "target": entry.where,
        "summary": summary_without_import(entry.target),
    }


def _loaded(entry: RegistryEntry) -> dict[str, Any]:
    """A component's details, or the reason why it can't be imported."""
    try:
        return {**_details(entry.load()), "error": None}
    except PluginError as error:
        return {"error": str(error)}


def _details(cls: type) -> dict[str, Any]:
    source = source_of(cls)
    return {
        "description": description_of(cls),
        "file": str(source[0]) if source else None,
        "line": source[1] if source else None,
        "fields": [_field(field) for field in fields_of(cls)],
        "capabilities": capabilities_of(cls),
    }


def _show(entry: RegistryEntry, *, json: bool) -> None:
    cls = entry.load()
    fields = fields_of(cls)
    source = source_of(cls)
    if json:
        print_json(_as_dict(context.plugins().registry, entry) | _details(cls))
        return
    out = console()
    head = Text.assemble((entry.name, "bold cyan"), f"  {entry.kind} of plugin {entry.plugin}")
    out.print(head, soft_wrap=True)
    if source:
        out.print(Text(f"{source[0]}:{source[1]}", style="dim"), soft_wrap=True)
    if description := description_of(cls):
        out.print(f"\n{description}")
    out.print()
    if not fields:
        out.print("It has no fields.")
        return
    rows = table("field", "type", "default", "what")
    rows.columns[0].style = "cyan"
    for field in fields:
        default = Text("required", "yellow") if field.required else Text(_literal(field.default))
        rows.add_row(field.name, field.type_text, default, field.doc)
    show(rows, out)


def _field(field: RecipeField) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": field.type_text,
        "required": field.required,
        "default": None if field.required else field.default,
        "component": field.kind,
        "doc": field.doc,
    }


def _literal(value: Any) -> str:
    """Format a default as a recipe writes it."""
    import json

    try:
        return json.dumps(value)
    except TypeError:
        return str(value)
