"""YAML and JSON with comments into a located tree, with bounds on everything.

The reader is PyYAML's pure SafeLoader up to its node graph; scalars are understood as YAML 1.2's
core schema does (`3e-4` is a number, `no` a text). Tags and merge keys are refused, aliases count
against a budget, and so do depth and size: a hostile file is refused in milliseconds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.error import Mark, MarkedYAMLError

from strawberry.errors import Location, Problem, RecipeError, StrawberryError
from strawberry.recipe.tree import Node

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 60

INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
OCTAL_LIKE = re.compile(r"[-+]?0[0-9]+\Z")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
SPECIAL: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip


def read_tree(path: Path) -> Node:
    """The tree of a recipe file (.yaml, .yml, or .json with // comments).

    Raises RecipeError with a place, or StrawberryError if there is no such file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError([_problem(f"{MAX_BYTES >> 20} MiB is too much for a recipe", path)])
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StrawberryError(f"{path}: can't be read: {reason}") from error
    text = _decode(data, path)
    if path.suffix == ".json":
        text = _plain_json(text)
    return parse(text, str(path))


def parse(text: str, file: str) -> Node:
    """The tree of a YAML text; `file` names it in locations. Raises RecipeError."""
    try:
        _check_bounds(text, file)
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except MarkedYAMLError as error:
        raise RecipeError([_syntax_problem(error, file)]) from error
    except yaml.YAMLError as error:
        raise RecipeError([_character_problem(error, text, file)]) from error
    if root is None:
        raise RecipeError([Problem("is empty; a recipe needs at least `model:`", _at(file))])
    return _Converter(file).node(root, 0)


def _check_bounds(text: str, file: str) -> None:
    """Refuse by events, which are made without recursion and without expanding aliases."""
    depth = count = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        where = event.start_mark
        count += 1
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent) and count > 2:
            raise RecipeError([Problem("a recipe is one document, not several", _at(file, where))])
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise RecipeError([Problem(f"tags such as {tag!r} are refused", _at(file, where))])
        if depth > MAX_DEPTH:
            raise RecipeError([Problem(f"nested deeper than {MAX_DEPTH}", _at(file, where))])
        if count > 2 * MAX_NODES:
            raise RecipeError([Problem(f"more than {MAX_NODES} values", _at(file, where))])


class _Converter:
    """From PyYAML's node graph, in which aliases share nodes, to a tree."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.count = 0
        self.open: set[int] = set()

    def node(self, source: yaml.Node, depth: int) -> Node:
        """The tree below `source`; raises RecipeError."""
        where = _at(self.file, source.start_mark)
        self.count += 1
        if self.count > MAX_NODES:
            message = f"aliases expand to more than {MAX_NODES} values"
            raise RecipeError([Problem(message, where)])
        if depth > MAX_DEPTH or id(source) in self.open:
            raise RecipeError([Problem("an alias contains itself", where)])
        if isinstance(source, yaml.ScalarNode):
            return Node(_scalar(source, where), where)
        self.open.add(id(source))
        try:
            if isinstance(source, yaml.SequenceNode):
                return Node([self.node(item, depth + 1) for item in source.value], where)
            return self._mapping(source, where, depth)
        finally:
            self.open.remove(id(source))

    def _mapping(self, source: Any, where: Location, depth: int) -> Node:
        value: dict[str, Node] = {}
        keys: dict[str, Location] = {}
        problems = []
        for key_node, value_node in source.value:
            place = _at(self.file, key_node.start_mark)
            key = getattr(key_node, "value", None)
            if not isinstance(key, str):
                problems.append(Problem("a key is a word", place))
            elif key == "<<" and key_node.style is None:
                problems.append(Problem("merge keys (<<) are refused; use `extends`", place))
            elif key in value:
                line = keys[key].line
                problems.append(Problem(f"{key!r} stands here again; first on line {line}", place))
            else:
                keys[key] = place
                value[key] = self.node(value_node, depth + 1)
        if problems:
            raise RecipeError(problems)
        return Node(value, where, keys)


def _scalar(node: yaml.ScalarNode, where: Location) -> Any:
    text: str = node.value
    if node.style is not None:
        return text
    if text in SPECIAL:
        return SPECIAL[text]
    if OCTAL_LIKE.match(text):
        plain = text.lstrip("+-").lstrip("0") or "0"
        message = f"{text} begins with 0; write {plain}, or '{text}' for a text"
        raise RecipeError([Problem(message, where)])
    if INT.match(text):
        if len(text) > 30:
            raise RecipeError([Problem(f"a number of {len(text)} digits is too large", where)])
        return int(text)
    return float(text) if FLOAT.match(text) else text


def _decode(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecipeError([_problem("is UTF-16; save it as UTF-8", path)])
    zero = data.find(b"\0")
    if zero >= 0:
        line, start = data.count(b"\n", 0, zero) + 1, data.rfind(b"\n", 0, zero) + 1
        where = Location(str(path), line, zero - start + 1)
        raise RecipeError([Problem("is not text (a zero byte); a recipe is YAML", where)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = Location(
            str(path), line, error.start - data.rfind(b"\n", 0, error.start)
        )
        raise RecipeError([Problem("is not UTF-8 text; a recipe is YAML", where)]) from error


def _plain_json(text: str) -> str:
    """JSON without // comments and tabs; what goes becomes blanks, so that places stay."""
    pieces = re.findall(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|\t|[^"/\t]+|.', text, flags=re.DOTALL)
    blanks = (" " * len(p) if p.startswith("//") or p == "\t" else p for p in pieces)
    return "".join(blanks)


def _syntax_problem(error: MarkedYAMLError, file: str) -> Problem:
    problem = error.problem or "is not YAML"
    mark = error.problem_mark or error.context_mark
    if "'\\t'" in problem:
        problem = "a tab can't indent YAML; use spaces"
    elif error.context:
        problem = f"{problem} ({error.context})"
    return Problem(problem, _at(file, mark))


def _character_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    position = getattr(error, "position", 0)
    character = getattr(error, "character", "")
    line, start = text.count("\n", 0, position) + 1, text.rfind("\n", 0, position) + 1
    name = f"character {ord(character):#x}" if isinstance(character, str) and character else "it"
    where = Location(file, line, position - start + 1)
    return Problem(f"is not text: {name} can't stand in YAML", where)


def _problem(message: str, path: Path) -> Problem:
    return Problem(message, _at(str(path)))


def _at(file: str, mark: Mark | None = None) -> Location:
    return Location(file, 1, 1) if mark is None else Location(file, mark.line + 1, mark.column + 1)
