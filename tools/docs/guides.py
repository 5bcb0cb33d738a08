"""Pages of the site that are files of the repository, with links that fit the site."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
GUIDES: Final = {
    "guides/recipes.md": "recipes/README.md",
    "guides/plugins.md": "plugins/README.md",
    "guides/ablations.md": "recipes/ablations/README.md",
    "guides/ladders.md": "recipes/ladders/README.md",
    "guides/lm_eval.md": "plugins/strawberry-lm-eval/README.md",
    "guides/transformers.md": "plugins/strawberry-hf/README.md",
    "guides/scaling.md": "tools/SCALING.md",
    "guides/referee.md": "strawberry/referee/README.md",
    "guides/architecture.md": "ARCHITECTURE.md",
    "guides/contributing.md": "CONTRIBUTING.md",
    "guides/faults.md": "tools/FAULTS.md",
    "guides/gpu.md": "tools/gpu/README.md",
    "guides/tools.md": "tools/README.md",
    "guides/reports.md": "tools/REPORTS.md",
    "guides/security.md": ".github/SECURITY.md",
    "findings/findings.md": "recipes/FINDINGS.md",
    "findings/log.md": "recipes/LOG.md",
    "findings/verdicts.md": "recipes/ablations/verdicts.md",
    "findings/speedrun.md": "recipes/speedrun/README.md",
    "findings/bench.md": "tools/bench/README.md",
    "changelog.md": "CHANGELOG.md",
    "readme.md": "README.md",
}
"""Pages, and the files that they are."""
FINDINGS: Final = ROOT / "recipes" / "findings"
"""Each finding has a page in this folder, which FINDINGS.md links."""
END: Final = "<!-- the first page of the documentation ends here -->"
"""Where README.md's first screen ends, which is the first page of the site."""


def write(out: Path) -> list[str]:
    """Write the pages and the pictures that they show; returns their names."""
    found = {f"findings/{f.name}": str(f.relative_to(ROOT)) for f in FINDINGS.glob("*.md")}
    pages = GUIDES | found
    homes = {file: page for page, file in pages.items()} | {
        "plugins/COMPONENTS.md": "components/index.md"
    }
    for page, file in pages.items():
        target = out / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(fitted((ROOT / file).read_text(), file, page, homes, out))
    head = (ROOT / "README.md").read_text().partition(END)[0]
    start = fitted(head, "README.md", "index.md", homes, out)
    (out / "index.md").write_text(start + (Path(__file__).with_name("start.md")).read_text())
    return list(pages)


def fitted(text: str, file: str, page: str, homes: Mapping[str, str], out: Path) -> str:
    """A file's text with links to pages of the site; what is no page stays as text.

    Args:
        text: of the file.
        file: its path in the repository.
        page: its path in the site.
        homes: the page of each file that has one.
        out: where pages are written, and pictures beside them.
    """

    def link(match: re.Match[str]) -> str:
        picture, label, target, anchor = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        where = os.path.normpath(Path(file).parent / target) if target else file
        if picture:
            copy = out / "pictures" / Path(where).name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes((ROOT / where).read_bytes())
            return f"![{label}]({_relative('pictures/' + copy.name, page)})"
        home = homes.get(where) or homes.get(f"{where}/README.md")
        if home is None:
            return label if "`" in label else f"{label} (`{where}`)"
        return f"[{label}]({_relative(home, page)}{anchor or ''})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    pattern = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)]*)?\)")
    return "".join(
        part if part.startswith("```") else bars(pattern.sub(link, part)) for part in parts
    )


def bars(text: str) -> str:
    """Code with an escaped `|`, which a table needs, as HTML: elsewhere the escape would show."""

    def code(match: re.Match[str]) -> str:
        plain = html.escape(match[1].replace("\\|", "|"), quote=False)
        return f"<code>{plain.replace('|', '&#124;')}</code>"

    return re.sub(r"`([^`\n]*\\\|[^`\n]*)`", code, text)


def _relative(target: str, page: str) -> str:
    return os.path.relpath(target, Path(page).parent)
