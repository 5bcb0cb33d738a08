"""The API reference: a page for each public module, whose docstrings mkdocstrings reads."""

from __future__ import annotations

from pathlib import Path

from strawberry.plugin.public import PUBLIC

HEAD = (
    "# Python API\n\nWhat programs and plugins may import; all else may change in any version.\n\n"
)


def write(out: Path) -> list[str]:
    """Write the pages, and return their names."""
    folder = out / "api"
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["| module | what it is for |\n|---|---|\n"]
    pages = ["api/index.md"]
    for module, what in PUBLIC.items():
        rows.append(f"| [`{module}`]({module}.md) | {what} |\n")
        (folder / f"{module}.md").write_text(f"# {module}\n\n::: {module}\n")
        pages.append(f"api/{module}.md")
    (folder / "index.md").write_text(HEAD + "".join(rows))
    return pages
