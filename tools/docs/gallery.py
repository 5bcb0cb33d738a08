"""The gallery of components: a page for each kind, with equations drawn and their sources."""

from __future__ import annotations

import ast
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import equations
import guides

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import component_reference as reference  # noqa: E402 (it is a script, not a package's module)

from strawberry.plugin.kinds import Kinds  # noqa: E402 (the path comes first)

HEAD = """# Components

What a recipe may name, by kind. Made from docstrings and signatures; `strawberry components KIND
NAME` prints the same in a terminal.

"""


def write(out: Path) -> list[str]:
    """Write the pages, and return their names."""
    everything = reference.components()
    kinds = {kind.name: kind for kind in Kinds()}
    folder = out / "components"
    folder.mkdir(parents=True, exist_ok=True)
    pages, overview = (
        ["components/index.md"],
        [HEAD, "| kind | what it does | components |\n|---|---|---|\n"],
    )
    for kind, found in groupby(everything, key=lambda one: str(one["kind"])):
        group = list(found)
        what = (kinds[kind].role or kinds[kind].summary) if kind in kinds else ""
        names = ", ".join(f"[`{one['name']}`]({kind}.md#{kind}-{one['name']})" for one in group)
        overview.append(f"| [{kind}]({kind}.md) | {what} | {names} |\n")
        (folder / f"{kind}.md").write_text(page(kind, what, group))
        pages.append(f"components/{kind}.md")
    (folder / "index.md").write_text("".join(overview))
    return pages


def page(kind: str, what: str, group: list[dict[str, Any]]) -> str:
    """A kind's components."""
    common = reference.usual(group)
    parts = [f"# {kind}\n\n{what[:1].upper()}{what[1:]}.\n" if what else f"# {kind}\n"]
    for one in group:
        text = reference.section(one, common)
        name = f"{kind}-{one['name']}"
        text = re.sub(r"### <a name=.*?></a>(\S+)", rf"## \1 {{ #{name} }}", text, count=1)
        head, table, fields = text.partition("| field |")
        parts.append(
            f"{equations.drawn(head)}{sources(one)}\n{table}{guides.bars(equations.drawn(fields))}"
        )
    return "\n".join(parts)


def sources(one: dict[str, Any]) -> str:
    """Papers that a component's module or class names, and its file."""
    file = one.get("file")
    if not file:
        return ""
    path = (ROOT / file) if not Path(file).is_absolute() else Path(file)
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    numbers = dict.fromkeys(re.findall(r"arXiv (\d{4}\.\d{4,5})", f"{text} {one['description']}"))
    papers = ", ".join(f"[arXiv {number}](https://arxiv.org/abs/{number})" for number in numbers)
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f"*Source:* `{where}`" + (f"; {papers}" if papers else "") + "\n"
