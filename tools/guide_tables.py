"""Write the tables of the guides that follow from the code.

    python tools/guide_tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. With `--check` nothing is written:
the exit status is 1 if a guide is not what would be written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from strawberry.plugin.public import PUBLIC

ROOT = Path(__file__).resolve().parent.parent
GUIDES = (ROOT / "plugins" / "README.md",)
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("  |", " |") for cells in lines)


def public() -> str:
    """The modules that plugins may import."""
    return table(("module", "what it is for"), ((f"`{n}`", what) for n, what in PUBLIC.items()))


TABLES: dict[str, Callable[[], str]] = {"public": public}


def written(guide: Path) -> str:
    """The guide with its tables as they follow from the code."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match[2]]()}{match[3]}"

    return _BLOCK.sub(block, guide.read_text(encoding="utf-8"))


def main() -> int:
    """Write the guides, or compare them."""
    stale = [guide for guide in GUIDES if written(guide) != guide.read_text(encoding="utf-8")]
    if "--check" in sys.argv[1:]:
        return int(bool(stale))
    for guide in stale:
        guide.write_text(written(guide), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
