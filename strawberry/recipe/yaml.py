"""Parse YAML, and JSON with comments, into a located tree within size limits.

PyYAML's pure parser produces events without recursion; the tree is built here. Scalars follow YAML
1.2's core schema (`3e-4` is a number, `no` is text). Tags and merge keys are refused. Aliases,
depth and size have limits, so a hostile file is refused in a fraction of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.error import Mark, MarkedYAMLError

from strawberry.errors import Location, Problem, RecipeError, StrawberryError
from strawberry.recipe.tree import Node

MAX_BYTES = 1 << 18
MAX_NODES = 10_000
MAX_DEPTH = 60
MAX_KEY = 200
MAX_INT = 1 << 63

INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
OCTAL_LIKE = re.compile(r"[-+]?0[0-9]+\Z")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
SURROGATE = re.compile("[\ud800-\udfff]")
JSON_PIECE = re.compile(r'"(?:\\.|[^"\\\n])*"?|//[^\n]*|\t|[^"/\t]+|/', flags=re.DOTALL)
SPECIAL: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip


def read_tree(path: Path) -> Node:
    """The tree of a recipe file (.yaml, .yml, or .json with // comments).

    Raises RecipeError with a location, or StrawberryError if there is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)  # no more, whatever it is: a device may have no end
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StrawberryError(f"{path}: can't read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise RecipeError([_problem(f"is too large: more than {MAX_BYTES >> 10} KiB", path)])
    text = _decode(data, path)
    if path.suffix == ".json":
        text = _plain_json(text)
    return parse(text, str(path))


def parse(text: str, file: str) -> Node:
    """The tree of a YAML text; `file` names it in locations. Raises RecipeError."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise RecipeError([_character_problem(error, text, file)]) from error
    try:
        return _Composer(loader, file).document()
    except MarkedYAMLError as error:
        raise RecipeError([_syntax_problem(error, file)]) from error
    except (OverflowError, ValueError) as error:  # PyYAML's, of an escape such as "\UFFFFFFFF"
        message = "an escape stands for no character"
        raise RecipeError([Problem(message, _at(file, loader.get_mark()))]) from error
    finally:
        loader.dispose()


def scalar(text: str) -> Any:
    """The value of an unquoted scalar; raises ValueError for one that a reader may misread.

    >>> scalar("3e-4"), scalar("no"), scalar("12"), scalar("")
    (0.0003, 'no', 12, None)
    """
    if text in SPECIAL:
        return SPECIAL[text]
    if OCTAL_LIKE.match(text):
        plain = text.lstrip("+-").lstrip("0") or "0"
        message = f"starts with 0; write {_short(plain)}, or {_short(text)!r} for text"
        raise ValueError(f"{_short(text)} {message}")
    if INT.match(text):
        if len(text) > 20 or abs(int(text)) >= MAX_INT:
            raise ValueError(f"a number of {len(text)} digits is too large")
        return int(text)
    return float(text) if FLOAT.match(text) else text


def quoted(text: str) -> str:
    """Text within `{}` or `[]`: quoted if YAML would read it as something else."""
    return yaml.dump([text], Dumper=_Dumper, width=10_000, allow_unicode=True,
                     default_flow_style=True).strip()[1:-1]  # fmt: skip


def dump(value: Any) -> str:
    """Plain data as YAML that `parse` reads back unchanged."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `scalar` would read as something else, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a repeated value out each time."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    try:
        plain = scalar(text) == text
    except ValueError:
        plain = False
    style = None if plain else "'"
    if not text.isprintable():  # only double quotes keep every kind of line break as it is
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


class _Composer:
    """A tree from PyYAML's events; errors are collected, and raised together at the end."""

    def __init__(self, loader: Any, file: str) -> None:
        self.loader = loader
        self.file = file
        self.count = 0
        self.anchors: dict[str, tuple[Node, int] | None] = {}  # None while it is being made
        self.problems: list[Problem] = []

    def document(self) -> Node:
        """The tree of the one document; raises RecipeError."""
        self.loader.get_event()  # the stream
        if self.loader.check_event(yaml.StreamEndEvent):
            message = "is empty; a recipe needs at least `model:`"
            raise RecipeError([Problem(message, _at(self.file))])
        self.loader.get_event()  # the document
        root = self.node(0)
        self.loader.get_event()  # its end
        end = self.loader.get_event()
        if not isinstance(end, yaml.StreamEndEvent):
            where = _at(self.file, end.start_mark)
            raise RecipeError([Problem("a recipe must be one document, not several", where)])
        if self.problems:
            raise RecipeError(self.problems)
        return root

    def node(self, depth: int) -> Node:
        """The value that begins with the next event."""
        event = self.loader.get_event()
        where = _at(self.file, event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), where)
        self._spend(1, where)
        if depth > MAX_DEPTH:
            raise RecipeError([Problem(f"is nested deeper than {MAX_DEPTH}", where)])
        if event.tag is not None:
            self.problems.append(Problem(f"tags such as {_short(event.tag)} are refused", where))
        before = self.count
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event, where), where)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node(list(self._items(depth)), where)
        else:
            node = self._mapping(where, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1 + self.count - before)
        return node

    def _alias(self, name: str, where: Location) -> Node:
        if name not in self.anchors:
            message = f"there is no anchor &{_short(name)} above; quote text that begins with *"
            raise RecipeError([Problem(message, where)])
        anchored = self.anchors[name]
        if anchored is None:
            raise RecipeError([Problem(f"*{_short(name)}: an alias contains itself", where)])
        self._spend(anchored[1], where)
        return anchored[0]

    def _spend(self, values: int, where: Location) -> None:
        self.count += values
        if self.count > MAX_NODES:
            message = f"contains more than {MAX_NODES} values, with aliases expanded"
            raise RecipeError([Problem(message, where)])

    def _items(self, depth: int) -> Iterator[Node]:
        while not self.loader.check_event(yaml.SequenceEndEvent):
            yield self.node(depth + 1)
        self.loader.get_event()

    def _mapping(self, where: Location, depth: int) -> Node:
        value: dict[str, Node] = {}
        keys: dict[str, Location] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            event = self.loader.peek_event()
            place = _at(self.file, event.start_mark)
            key = self.node(depth + 1).value
            child = self.node(depth + 1)
            if not isinstance(event, yaml.ScalarEvent) or len(event.value) > MAX_KEY:
                self.problems.append(Problem("a key must be a word", place))
            elif key == "<<" and event.style is None:
                message = "merge keys (<<) are refused; use `extends`"
                self.problems.append(Problem(message, place))
            elif event.value in value:
                message = f"duplicate key {event.value!r}; first on line "
                message += str(keys[event.value].line)
                self.problems.append(Problem(message, place))
            else:
                value[event.value] = child
                keys[event.value] = place
        self.loader.get_event()
        return Node(value, where, keys)

    def _scalar(self, event: yaml.ScalarEvent, where: Location) -> Any:
        text: str = event.value
        try:
            if event.style is None:
                return scalar(text)
            if SURROGATE.search(text):  # JSON writes a character beyond U+FFFF as two escapes
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.problems.append(Problem("an escape stands for half a character", where))
            return ""
        except ValueError as error:
            self.problems.append(Problem(str(error), where))
        return text


def _decode(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecipeError([_problem("is UTF-16; save it as UTF-8", path)])
    zero = data.find(b"\0")
    if zero >= 0:
        message = "is not text (it contains a zero byte); a recipe must be YAML"
        raise RecipeError([Problem(message, _byte_place(data, zero, path))])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = _byte_place(data, error.start, path)
        raise RecipeError([Problem("is not UTF-8 text; a recipe must be YAML", where)]) from error


def _byte_place(data: bytes, offset: int, path: Path) -> Location:
    line = data.count(b"\n", 0, offset) + 1
    return Location(str(path), line, offset - data.rfind(b"\n", 0, offset))


def _plain_json(text: str) -> str:
    """JSON with // comments and tabs replaced by blanks, so that locations stay."""
    pieces = JSON_PIECE.findall(text)
    blanks = (" " * len(p) if p.startswith("//") or p == "\t" else p for p in pieces)
    return "".join(blanks)


def _syntax_problem(error: MarkedYAMLError, file: str) -> Problem:
    problem = error.problem or "is not YAML"
    mark = error.problem_mark or error.context_mark
    if "'\\t'" in problem:
        problem = "a tab can't indent YAML; use spaces"
    elif error.context and "alias" in error.context:
        problem = "quote text that begins with *"
    elif "cannot start any token" in problem:
        problem = f"{problem.partition(' that')[0]}: quote text that begins with it"
    elif error.context:
        problem = f"{problem} ({error.context})"
    return Problem(_short(problem), _at(file, mark))


def _character_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    position = getattr(error, "position", 0)
    line, start = text.count("\n", 0, position) + 1, text.rfind("\n", 0, position) + 1
    name = f"character {ord(text[position]):#x}" if position < len(text) else "it"
    where = Location(file, line, position - start + 1)
    return Problem(f"is not text: YAML doesn't allow {name}", where)


def _problem(message: str, path: Path) -> Problem:
    return Problem(message, _at(str(path)))


def _at(file: str, mark: Mark | None = None) -> Location:
    return Location(file, 1, 1) if mark is None else Location(file, mark.line + 1, mark.column + 1)


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:157]}..."
