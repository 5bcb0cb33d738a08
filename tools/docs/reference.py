"""The reference of recipes: every section and field, from the JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from strawberry.plugin.kinds import Kinds

ROOT: Final = Path(__file__).resolve().parents[2]
HEAD: Final = """# Recipe reference

Every key of a recipe, made from `recipes/schema.json`. `strawberry schema` prints that file for
your plugins; an editor that knows it completes keys and shows these texts. The [guide](recipes.md)
explains them in order.

"""
Schema = Mapping[str, Any]


def write(out: Path) -> None:
    """Write `guides/reference.md`."""
    schema = json.loads((ROOT / "recipes" / "schema.json").read_text())
    text = HEAD + "## A recipe\n\n" + table(schema)
    for name, part in schema["properties"].items():
        if "properties" in part:
            text += f"## {name}\n\n" + table(part)
    entries = [(name, part) for name, part in schema["$defs"].items() if not _is_component(name)]
    for name, part in entries:
        shown = list(_objects(part))
        for one in shown:
            title = name if len(shown) == 1 else f"{name}: {_mark(one)}"
            text += f"## {title}\n\n" + table(one)
    (out / "guides").mkdir(parents=True, exist_ok=True)
    (out / "guides" / "reference.md").write_text(text)


def _is_component(name: str) -> bool:
    return ":" in name


def _objects(part: Any) -> Iterator[Schema]:
    """The mappings that a definition allows."""
    if not isinstance(part, Mapping):  # `true`: anything
        return
    if "properties" in part:
        yield part
    for key in ("anyOf", "oneOf"):
        for one in part.get(key, ()):
            yield from _objects(one)


def _mark(part: Schema) -> str:
    return next(iter(part.get("required", ())), next(iter(part["properties"])))


def _either(kinds: list[str]) -> str:
    """Several types in words; a component may always be a mapping, so that isn't said."""
    component = any("../components/" in one for one in kinds)
    return " or ".join(one for one in kinds if not (component and one == "mapping"))


def table(part: Schema) -> str:
    """The fields of a mapping."""
    lines = ["| key | type | default | what |", "|---|---|---|---|"]
    for name, field in part["properties"].items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        what = field.get("description", "")
        if "properties" in field:
            what = what or f"see [{name}](#{name})"
        what = what or summary(name)
        cells = (f"`{name}`", kind(field), default, what)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n\n"


def summary(key: str) -> str:
    """What the component under a key does; nothing for other keys."""
    for one in Kinds():
        if key == one.key:
            return one.role or one.summary
    return ""


def kind(field: Any) -> str:
    """A field's type in words."""
    if not isinstance(field, Mapping):
        return "anything"
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](../components/{name}.md)" if name in Kinds().names else f"`{name}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    for key in ("anyOf", "oneOf"):
        if key in field:
            return _either(list(dict.fromkeys(kind(one) for one in field[key])))
    names = {
        "integer": "whole number",
        "object": "mapping",
        "array": "list",
        "boolean": "true or false",
    }
    word = field.get("type", "any")
    words = [word] if isinstance(word, str) else word
    text = " or ".join(names.get(each, each) for each in words)
    bounds = [
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ]
    limits = [f"{sign} {field[name]:,}" for name, sign in bounds if name in field]
    if "items" in field:
        text += f" of {kind(field['items'])}"
    return f"{text} {', '.join(limits)}".strip()
