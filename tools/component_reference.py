"""Write plugins/COMPONENTS.md from what the components say of themselves.

    python tools/component_reference.py [--check]

The source is `strawberry components --json`, so the distributions in plugins/ must be installed;
plugins from elsewhere are left out. With `--check` nothing is written: the exit status is 1 if the
file is not what would be written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "plugins" / "COMPONENTS.md"
HEAD = """# Components

Made by `python tools/component_reference.py` from docstrings and signatures; change those.

What a recipe may name, by kind, with its fields. A field without a default must be given. Under a
component stand the capabilities in which it differs from its kind.
"""


def main() -> int:
    """Write the file, or compare it."""
    text = reference()
    if "--check" in sys.argv[1:]:
        current = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
        return int(current != text)
    FILE.write_text(text, encoding="utf-8")
    return 0


def reference() -> str:
    """The whole page."""
    everything = components()
    parts = [HEAD, contents(everything)]
    for kind, found in groupby(everything, key=lambda one: one["kind"]):
        parts.append(f"## {kind}\n")
        group = list(found)
        common = usual(group)
        parts += [section(one, common) for one in group]
    return "\n".join(parts)


def components() -> list[dict[str, Any]]:
    """What each component of Strawberry and of plugins/ says of itself, by kind."""
    words = [sys.executable, "-m", "strawberry", "components", "--json"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    names = {"strawberry"}
    for project in ROOT.glob("plugins/*/pyproject.toml"):
        names |= set(tomllib.loads(project.read_text())["project"]["entry-points"]["strawberry"])
    return [one for one in json.loads(done.stdout) if one["plugin"] in names]


def contents(everything: list[dict[str, Any]]) -> str:
    """A line for each kind, with links."""
    lines = []
    for kind, found in groupby(everything, key=lambda one: one["kind"]):
        links = ", ".join(f"[{one['name']}](#{kind}-{one['name']})" for one in found)
        lines.append(f"- **{kind}**: {links}")
    return "\n".join(lines) + "\n"


def usual(group: list[dict[str, Any]]) -> dict[str, Any]:
    """The value of each capability that most of a kind have."""
    values: dict[str, list[str]] = {}
    for one in group:
        for name, value in one["capabilities"].items():
            values.setdefault(name, []).append(json.dumps(value))
    return {
        name: json.loads(max(sorted(set(found)), key=found.count)) for name, found in values.items()
    }


def section(one: dict[str, Any], common: dict[str, Any]) -> str:
    """A component: what it is, what it can do otherwise, its fields."""
    if one["error"]:
        sys.exit(f"{one['full_name']}: {one['error']}")
    lines = [f'### <a name="{one["kind"]}-{one["name"]}"></a>{one["kind"]}/{one["name"]}', ""]
    lines += [one["description"], ""]
    if one["plugin"] != "strawberry":
        lines += [f"In `plugins/strawberry-{one['plugin'].replace('_', '-')}`.", ""]
    other = [
        f"`{name}: {json.dumps(value)}`"
        for name, value in one["capabilities"].items()
        if value != common[name]
    ]
    if other:
        lines += ["Capabilities: " + ", ".join(other) + ".", ""]
    if one["fields"]:
        lines += ["| field | type | default | what |", "|---|---|---|---|"]
        for field in one["fields"]:
            default = "" if field["required"] else f"`{json.dumps(field['default'])}`"
            cells = [f"`{field['name']}`", f"`{field['type']}`", default, field["doc"]]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
