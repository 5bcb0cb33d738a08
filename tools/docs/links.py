"""Whether all that a built site refers to is there, and nothing is loaded from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

LOADED: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
SHOWN: Final = ("stylesheet", "icon", "preload", "preconnect", "modulepreload")


class _Page(HTMLParser):
    """The anchors of a page, what it links to and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the attributes that name something."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and set(given.get("rel", "").split()) & set(SHOWN):
            self.loads.append(given.get("href", ""))
        elif LOADED.get(tag) in given:
            self.loads.append(given[LOADED[tag]])


def broken(site: Path) -> list[str]:
    """A line for each link that leads nowhere, and for each thing loaded from elsewhere."""
    pages = {file: _read(file) for file in sorted(site.rglob("*.html"))}
    problems = []
    for file, page in pages.items():
        where = file.relative_to(site)
        problems += [f"{where}: loads {one}" for one in page.loads if urlsplit(one).netloc]
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or where.name == "404.html":
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                problems.append(f"{where}: {link} leads nowhere")
            elif (
                parts.fragment
                and unquote(parts.fragment) not in pages[_same(target, pages)].anchors
            ):
                problems.append(f"{where}: {link} has no such place")
    return problems


def _read(file: Path) -> _Page:
    page = _Page()
    page.feed(file.read_text())
    return page


def _same(target: Path, pages: dict[Path, _Page]) -> Path:
    return next(file for file in pages if file.resolve() == target)
