"""Write the tables of the guides that follow from the code.

    python tools/guide_tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. With `--check` nothing is written:
the exit status is 1 if a guide is not what would be written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from strawberry.plugin.kinds import ComponentKind, Kinds
from strawberry.plugin.public import PUBLIC
from strawberry.plugin.signature import RecipeField, fields_of
from strawberry.recipe.fields import ModelFields, RecurFields, TrainFields
from strawberry.recipe.grammar import ENTRY, RECIPE, STACK

ROOT = Path(__file__).resolve().parent.parent
GUIDES = (ROOT / "plugins" / "README.md", ROOT / "recipes" / "README.md")
KINDS = Kinds()
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(cells)} |\n".replace("  |", " |") for cells in (header, *rows)]
    return "".join([lines[0], "|---" * len(header), "|\n", *lines[1:]])


def public() -> str:
    """The modules that plugins may import."""
    return table(("module", "what it is for"), ((f"`{n}`", what) for n, what in PUBLIC.items()))


def sections() -> str:
    """The sections of a recipe: its own words, and the kinds that stand there."""
    rows = {key: (word.meaning, word.absent) for key, word in RECIPE.items()}
    rows |= {kind.key: (_role(kind), _default(kind)) for kind in KINDS.at("recipe")}
    last = rows.pop("train")
    return table(("key", "what it is", "if absent"), _keyed({**rows, "train": last}))


def model() -> str:
    """The fields of `model`, the stack, and the kinds that stand there."""
    fields = fields_of(ModelFields)
    rows = {field.name: _cells(field) for field in fields if field.required}
    rows["stack"] = (STACK.meaning, "")
    rows |= {kind.key: (_role(kind), _default(kind)) for kind in KINDS.at("model")}
    rows |= {field.name: _cells(field) for field in fields if not field.required}
    return table(("key", "meaning", "default"), _keyed(rows))


def entry() -> str:
    """The keys of an entry of a stack."""
    rows: dict[str, tuple[str, ...]] = {}
    for kind in KINDS.at("block"):
        inside = "in place of the model's, for this block"
        own = f"{kind.summary} of a block; `none` leaves it out"
        rows[kind.key] = (own if kind.is_part else f"{kind.summary}, {inside}", "")
    for kind in KINDS.at("entry"):
        rows[kind.key] = (f"{kind.summary} of everything inside, in place of that around it", "")
    rows |= {key: (word.meaning, "") for key, word in ENTRY.items()}
    of = "of a `recur`: "
    rows |= {f.name: (of + f.doc.rstrip("."), _shown(f.default)) for f in fields_of(RecurFields)}
    for kind in KINDS.at("recur"):
        rows[kind.key] = (of + _role(kind), "none" if kind.nothing else _default(kind))
    return table(("key", "meaning", "default"), _keyed(rows))


def train() -> str:
    """The fields of `train`."""
    fields = sorted(fields_of(TrainFields), key=lambda field: field.name.endswith("_seed"))
    rows = {field.name: _cells(field) for field in fields}
    return table(("key", "meaning", "default"), _keyed(rows))


def _keyed(rows: Mapping[str, tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    return ((f"`{key}`", *cells) for key, cells in rows.items())


def _cells(field: RecipeField) -> tuple[str, str]:
    return field.doc.rstrip("."), "" if field.required else _shown(field.default)


def _shown(value: object) -> str:
    """A default as a recipe's author writes it."""
    plain = {None: "null", True: "true", False: "false"}
    known = value is None or isinstance(value, bool)
    return f"`{plain[value] if known else value}`"  # type: ignore[index]


def _role(kind: ComponentKind) -> str:
    more = {"one": "", "either": "; one, or a list of some", "list": "; a list"}
    return (kind.role or kind.summary) + more[kind.many]


def _default(kind: ComponentKind) -> str:
    return "none" if kind.default is None else f"`{kind.default.removeprefix('strawberry/')}`"


TABLES: dict[str, Callable[[], str]] = {
    "public": public,
    "sections": sections,
    "model": model,
    "entry": entry,
    "train": train,
}


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
