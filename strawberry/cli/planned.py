"""Options of a command that set fields of a plan: texts, limits and defaults are the plan's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from strawberry.cli.numbers import bounds_of
from strawberry.plugin.signature import RecipeField, fields_of

Command = TypeVar("Command", bound=Callable[..., None])


def planned(*plans: type, without: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Give a command that takes `**options` an option for each field of these plans.

    Each is None unless it is given. A field that the command has a parameter of stays that one's.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        hints = get_type_hints(command, include_extras=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        parameters = [p.replace(annotation=hints[p.name]) for p in own]
        for field in (field for plan in plans for field in fields_of(plan)):
            if field.name not in (*without, *(p.name for p in parameters)):
                option = inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=_option(field),
                )
                parameters.append(option)
        # Typer, and the check of numbers, read the one and the other.
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _option(field: RecipeField) -> Any:
    """The annotation of a field's option."""
    inner, bounds = _inner(field.annotation)
    how: dict[str, Any] = {"help": _help(field)}
    if get_origin(inner) is Literal:
        how["metavar"] = "|".join(get_args(inner))
        inner = str
    names = (f"--{field.name.replace('_', '-')}",) if inner is bool else ()
    return Annotated[inner | None, typer.Option(*names, **how), *bounds]


def _inner(annotation: Any) -> tuple[Any, list[Any]]:
    """The type of a field that may be null, and its bounds."""
    arguments = [item for item in get_args(annotation) if item is not type(None)]
    if type(None) in get_args(annotation):
        annotation = arguments[0]
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0], list(bounds_of(annotation))
    return annotation, []


def _help(field: RecipeField) -> str:
    """The field's text, and its default if it has one."""
    text = field.doc.replace("`", "")
    text = text[:1].upper() + text[1:]
    if field.default is None or field.default is False:
        return text
    shown = f"{field.default:g}" if isinstance(field.default, float) else field.default
    return f"{text} Default: {shown}."
