"""A hook of mkdocs: an entry of `nav` that ends with `*` stands for the pages of its folder.

Which pages there are follows from components and findings, so that no list can be out of date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Replace such entries by their pages, in alphabetical order after what is listed already."""
    config["nav"] = _expanded(config["nav"], Path(config["docs_dir"]), _listed(config["nav"]))
    return config


def _listed(entry: Any) -> set[str]:
    """The pages that a part of `nav` names."""
    if isinstance(entry, str):
        return {entry}
    parts = entry.values() if isinstance(entry, dict) else entry
    return set().union(*map(_listed, parts))


def _expanded(entries: list[Any], docs: Path, listed: set[str]) -> list[Any]:
    """The entries of a list, with the pages of folders."""
    made: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and entry.endswith("*"):
            pages = (page.relative_to(docs).as_posix() for page in docs.glob(f"{entry}.md"))
            made += sorted(set(pages) - listed)
        elif isinstance(entry, dict):
            ((title, inside),) = entry.items()
            made.append(
                {title: _expanded(inside, docs, listed) if isinstance(inside, list) else inside}
            )
        else:
            made.append(entry)
    return made
