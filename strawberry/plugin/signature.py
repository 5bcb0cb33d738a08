"""The signature is the schema: a component's keyword-only parameters are its recipe fields.

Types and defaults come from the constructor, texts from the `Args:` section of the docstring.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import inspect
import re
import types
import typing
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

from strawberry.errors import PluginError
from strawberry.plugin.registry import one_line

if TYPE_CHECKING:
    import pydantic


class _Required:
    """The default of a required field."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Kind:
    """Marks a field that holds a component: `ffn: Annotated[ComponentSpec, Kind("ffn")]`."""

    name: str


@dataclass(frozen=True, slots=True)
class RecipeField:
    """A recipe field of a component.

    Attributes:
        name: as written in a recipe.
        annotation: its evaluated type, `Annotated` metadata included.
        default: its default, or `REQUIRED`.
        doc: its text in the docstring, on one line; may be empty.
    """

    name: str
    annotation: Any
    default: Any
    doc: str

    @property
    def required(self) -> bool:
        """True if a recipe must give it."""
        return self.default is REQUIRED

    @property
    def kind(self) -> str | None:
        """The kind of component that it holds (one, optional, or a list), or None."""
        return kind_of(self.annotation)

    @property
    def type_text(self) -> str:
        """Its type for people: `int >= 1`, `"pre" | "post"`, `ffn component`."""
        return type_text(self.annotation)


@functools.cache
def fields_of(cls: type) -> tuple[RecipeField, ...]:
    """The recipe fields of a component: the keyword-only parameters of its constructor, in order.

    A constructor that takes `**shared` passes it to its base class, whose fields follow.

    Raises:
        PluginError: an annotation is missing or can't be evaluated, or a name starts with `_`.
    """
    docs = _docs(cls)
    fields: dict[str, RecipeField] = {}
    for constructor in _constructors(cls):
        for name, parameter in inspect.signature(constructor).parameters.items():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name in fields:
                continue
            if name.startswith("_"):
                raise PluginError(f"{_name(cls)}: field {name!r} must not start with '_'")
            empty = parameter.default is inspect.Parameter.empty
            default = REQUIRED if empty else parameter.default
            annotation = _evaluate(cls, constructor, parameter)
            fields[name] = RecipeField(name, annotation, default, docs.get(name, ""))
    return tuple(fields.values())


@functools.cache
def model_of(cls: type) -> type[pydantic.BaseModel]:
    """A pydantic model of the component's fields, for validation and for the schema.

    It forbids unknown fields, infinities and NaN, and converts nothing: an int is not a bool, a
    string not a number. An int may stand for a float, and a JSON list for a tuple when validated
    with `model_validate_json`. A field that holds a component accepts anything here, and its schema
    says `{"x-component": KIND}`; whoever resolves components validates them.

    Raises:
        PluginError: pydantic can't validate a type.
    """
    import pydantic

    config = pydantic.ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=False,
        protected_namespaces=(),
        ser_json_inf_nan="constants",
    )
    definitions: dict[str, Any] = {}
    for field in fields_of(cls):
        default = ... if field.required else field.default
        info = pydantic.Field(default, description=field.doc or None)
        definitions[field.name] = (_without_components(field.annotation), info)
    try:
        with warnings.catch_warnings():
            # A field may be called `copy` or `schema`; pydantic's own methods aren't used on it.
            warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
            return pydantic.create_model(cls.__name__, __config__=config, **definitions)
    except Exception as error:
        raise PluginError(f"{_name(cls)}: can't validate its fields: {one_line(error)}") from (
            error
        )


def kind_of(annotation: Any) -> str | None:
    """The kind of a `Kind` anywhere in an annotation, or None."""
    if get_origin(annotation) is Annotated:
        for item in annotation.__metadata__:
            if isinstance(item, Kind):
                return item.name
    for argument in get_args(annotation):
        if (kind := kind_of(argument)) is not None:
            return kind
    return None


def type_text(annotation: Any) -> str:  # noqa: PLR0911 (a case a line)
    """An annotation in a readable form."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if (kind := kind_of(annotation)) is not None:
            return f"{kind} component"
        return type_text(arguments[0]) + "".join(_constraints(annotation.__metadata__))
    if origin is typing.Literal:
        return " | ".join(f'"{a}"' if isinstance(a, str) else str(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_text(argument) for argument in arguments)
    if annotation is type(None):
        return "None"
    if annotation is Any:
        return "any"
    if origin is not None:
        inside = ", ".join("..." if a is ... else type_text(a) for a in arguments)
        return f"{getattr(origin, '__name__', str(origin))}[{inside}]"
    return getattr(annotation, "__name__", str(annotation))


def source_of(cls: type) -> tuple[Path, int] | None:
    """The file and the line (from 1) of a class definition, or None without a source."""
    try:
        file = inspect.getsourcefile(cls)
        return (Path(file), inspect.getsourcelines(cls)[1]) if file else None
    except (OSError, TypeError):
        return None


def capabilities_of(cls: type) -> dict[str, bool | list[str]]:
    """Declarations that a component's contract defines, with the values of its class.

    These are the annotated class attributes of its bases that are booleans or sets of words; an
    instance may still choose by its fields.
    """
    declared: dict[str, bool | list[str]] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == "torch":
            continue
        for name in vars(base).get("__annotations__", {}):
            value = getattr(cls, name, None)
            if isinstance(value, bool):
                declared[name] = value
            elif isinstance(value, frozenset):
                declared[name] = sorted(value)
    return declared


def description_of(cls: type) -> str:
    """A class's own docstring up to its first section, with each paragraph on one line."""
    paragraphs = []
    for paragraph in inspect.cleandoc(vars(cls).get("__doc__") or "").split("\n\n"):
        if _HEADING.match(paragraph.strip().split("\n")[0]):
            break
        paragraphs.append(" ".join(paragraph.split()))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def summary_without_import(target: str | type) -> str:
    """The first paragraph of a target's docstring, read from its source; "" if not found.

    Nothing is imported, so listing components costs no torch import.
    """
    if isinstance(target, type):
        return description_of(target).split("\n\n")[0]
    module, _, attribute = target.partition(":")
    file = file_of(module)
    try:
        tree = ast.parse(file.read_bytes()) if file else None
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            doc = ast.get_docstring(node) or ""
            return " ".join(doc.split("\n\n")[0].split())
    return ""


def file_of(module: str) -> Path | None:
    """The source file of a module, without importing it or its parents; None if unknown."""
    top, *rest = module.split(".")
    with contextlib.suppress(Exception):
        spec = importlib.util.find_spec(top)
        if spec is None:
            return None
        if not rest:
            return Path(spec.origin) if spec.origin else None
        for folder in spec.submodule_search_locations or ():
            base = Path(folder, *rest)
            for file in (base.with_suffix(".py"), base / "__init__.py"):
                if file.is_file():
                    return file
    return None


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}


def _constraints(metadata: tuple[Any, ...]) -> Iterator[str]:
    for item in metadata:
        nested = getattr(item, "metadata", None)  # a pydantic FieldInfo keeps its own list
        if isinstance(nested, list):
            yield from _constraints(tuple(nested))
            continue
        for attribute, sign in _SIGNS.items():
            if (bound := getattr(item, attribute, None)) is not None:
                yield f" {sign} {bound}"


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _constructors(cls: type) -> Iterator[Any]:
    """The constructor, and those of the base classes that receive its `**shared`."""
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        constructor = inspect.unwrap(vars(base)["__init__"])
        yield constructor
        kinds = {p.kind for p in inspect.signature(constructor).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return


def _evaluate(cls: type, constructor: Any, parameter: inspect.Parameter) -> Any:
    if parameter.annotation is inspect.Parameter.empty:
        raise PluginError(f"{_name(cls)}: field {parameter.name!r} has no type annotation")
    # One at a time: a constructor's other annotations (the site) may name things that are imported
    # for type checkers only.
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    namespace = getattr(constructor, "__globals__", {})
    try:
        hints = typing.get_type_hints(holder, namespace, dict(vars(cls)), include_extras=True)
    except Exception as error:
        raise PluginError(
            f"{_name(cls)}: can't evaluate the type of field {parameter.name!r}: {one_line(error)}"
        ) from error
    return hints[parameter.name]


def _without_components(annotation: Any) -> Any:
    """The annotation with `Any` in place of each component."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if kind_of(annotation) is None:
        return annotation
    if origin is Annotated and any(isinstance(item, Kind) for item in annotation.__metadata__):
        import pydantic

        return Annotated[Any, pydantic.WithJsonSchema({"x-component": kind_of(annotation)})]
    replaced = tuple(_without_components(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(lambda left, right: left | right, replaced)
    if origin is Annotated:
        return Annotated[replaced[0], *annotation.__metadata__]
    return origin[replaced]


_SECTION = re.compile(r"(Args|Arguments|Parameters|Fields):\s*$")
_HEADING = re.compile(r"[A-Z]\w*( \w+)?:$")
_ITEM = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def _docs(cls: type) -> dict[str, str]:
    """Field texts from the docstrings of the class, its constructor, then its bases."""
    docs: dict[str, str] = {}
    for base in cls.__mro__:
        for text in (vars(base).get("__doc__"), getattr(vars(base).get("__init__"), "__doc__", "")):
            for name, doc in _parse(text or "").items():
                docs.setdefault(name, doc)
    return docs


def _parse(docstring: str) -> dict[str, str]:
    """The items of a Google-style `Args:` section."""
    docs: dict[str, list[str]] = {}
    section = indent = item = None
    for line in inspect.cleandoc(docstring).splitlines():
        depth = len(line) - len(line.lstrip())
        if section is None or (line.strip() and depth <= section):
            section = depth if _SECTION.match(line.strip()) else None
            indent = item = None
            continue
        if not line.strip():
            continue
        indent = depth if indent is None else indent
        match = _ITEM.match(line.strip()) if depth <= indent else None
        if match:
            item = match[1]
            docs[item] = [match[2]]
        elif item is not None:
            docs[item].append(line.strip())
    return {name: " ".join(part for part in parts if part) for name, parts in docs.items()}
