"""The notebook of the site: run from top to bottom, and shown as a page with its outputs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import nbformat

FILE: Final = Path(__file__).with_name("notebook.ipynb")


def write(out: Path, *, run: bool) -> None:
    """Write `tutorials/notebook.md`; without `run` the cells have no outputs."""
    book = executed() if run else _read()
    parts = [cell.source if cell.cell_type == "markdown" else _code(cell) for cell in book.cells]
    (out / "tutorials" / "notebook.md").write_text("\n\n".join(parts) + "\n")


def executed() -> Any:
    """The notebook after all of its cells, in an empty folder; an error of a cell ends it."""
    from nbclient import NotebookClient

    book = _read()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=600, resources={"metadata": {"path": folder}}).execute()
    return book


def _read() -> Any:
    return nbformat.read(FILE, as_version=4)


def _code(cell: Any) -> str:
    parts = [f"```python\n{cell.source}\n```"]
    for output in cell.outputs:
        data = output.get("data", {})
        if "text/html" in data:
            html = "".join(line.strip() if "<pre>" not in data["text/html"] else line
                           for line in data["text/html"].splitlines(keepends=True))  # fmt: skip
            parts.append(f'<div class="jp-output">{html}</div>')
        elif text := data.get("text/plain", output.get("text", "")).rstrip():
            parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts)
