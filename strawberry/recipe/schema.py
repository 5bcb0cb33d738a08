"""The JSON Schema of recipes for editors: every registered component with its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from strawberry.errors import PluginError
from strawberry.plugin.kinds import ComponentKind, Kinds, Place
from strawberry.plugin.signature import description_of, model_of
from strawberry.recipe.fields import ModelFields, RecurFields, TrainFields
from strawberry.recipe.grammar import ENTRY, RECIPE, Word

if TYPE_CHECKING:
    from strawberry.plugin import Plugins, RegistryEntry

NOTHING: Final = ({"const": "none"}, {"type": "null"})


def json_schema(plugins: Plugins) -> dict[str, Any]:
    """A draft 2020-12 schema; components that can't be imported are left out."""
    kinds = plugins.registry.kinds
    definitions: dict[str, Any] = {}
    for kind in kinds:
        _add_kind(definitions, kind, plugins)
    definitions["entry"] = _entry(kinds)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Strawberry recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", **_described(RECIPE["name"])},
            "extends": {"type": "string", **_described(RECIPE["extends"])},
            "set": {"type": "object", **_described(RECIPE["set"])},
            "seed": {
                "anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}],
                **_described(RECIPE["seed"]),
            },
            "requires": {
                "type": "array",
                "items": {"type": "string"},
                **_described(RECIPE["requires"]),
            },
            "scale": {
                "type": "object",
                "additionalProperties": {"type": "number", "minimum": 0, "maximum": 4},
                **_described(RECIPE["scale"]),
            },
            "model": _model(definitions, kinds),
            **_keys_at(kinds, "recipe"),
            "train": _fields(TrainFields, definitions),
        },
        "$defs": definitions,
    }


def _model(definitions: dict[str, Any], kinds: Kinds) -> dict[str, Any]:
    schema = _fields(ModelFields, definitions)
    schema.pop("required", None)  # what is missing may come from `extends`
    schema["properties"] |= {**_keys_at(kinds, "model"), "stack": _stack()}
    return schema


def _entry(kinds: Kinds) -> dict[str, Any]:
    count = {"type": "integer", "minimum": 1, "maximum": 10_000}
    return {
        "type": "object",
        "description": "A block, or a repeat or recur of blocks.",
        "additionalProperties": False,
        "properties": {
            "repeat": {**count, **_described(ENTRY["repeat"])},
            "recur": {**count, **_described(ENTRY["recur"])},
            **_fields(RecurFields, {})["properties"],
            "stack": _stack(),
            **_keys_at(kinds, "block", "entry", "recur"),
        },
    }


def _keys_at(kinds: Kinds, *places: Place) -> dict[str, Any]:
    """The keys at these places: a component, the value for none, or a list."""
    properties = {}
    for kind in kinds.at(*places):
        # A kind's first place is where its default stands, so that its fields alone suffice there.
        at_home = kind.places[0] in places
        one = _section(kind.name) if at_home and kind.default else _component(kind.name)
        listed = {"type": "array", "items": one}
        if kind.many == "list":
            one = listed
        elif kind.many == "either":
            one = {"anyOf": [one, {**listed, "minItems": 1}]}
        elif kind.nothing:
            one = {"anyOf": [one, *NOTHING]}
        elif not (at_home and kind.default):
            one = {"anyOf": [one, {"type": "null"}]}
        properties[kind.key] = one
    return properties


def _described(word: Word) -> dict[str, str]:
    return {"description": word.meaning}


def _stack() -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/entry"}}


def _component(kind: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{kind}"}


def _section(kind: str) -> dict[str, Any]:
    """A component, or fields for the default or the extended one."""
    fields = {"type": "object", "properties": {"use": False}}
    return {"anyOf": [_component(kind), fields]}


def _add_kind(definitions: dict[str, Any], kind: ComponentKind, plugins: Plugins) -> None:
    """`$defs` of a kind: any of its components, by name or with fields."""
    choices: list[dict[str, Any]] = []
    names: list[str] = []
    for entry in plugins.registry.entries(kind.name):
        try:
            schema = _with_use(entry, plugins, kind, definitions)
        except PluginError:
            continue
        key = f"{kind.name}:{entry.full_name}".replace("/", ".")
        definitions[key] = schema
        names += schema["properties"]["use"]["enum"]
        choices.append({"$ref": f"#/$defs/{key}"})
    definitions[kind.name] = {"anyOf": [{"enum": names}, *choices]} if names else False


def _with_use(
    entry: RegistryEntry, plugins: Plugins, kind: ComponentKind, definitions: dict[str, Any]
) -> dict[str, Any]:
    cls = entry.load()
    schema = _fields(cls, definitions)
    schema["description"] = description_of(cls)
    names = dict.fromkeys([plugins.registry.short_name(entry), entry.full_name])
    properties = {"use": {"enum": list(names)}, **schema.get("properties", {})}
    if kind.selects:
        properties["params"] = {
            "type": "string",
            "description": "Parameters that this optimizer takes.",
        }
    return {**schema, "properties": properties, "required": ["use"]}


def _fields(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a signature's fields, with nested components as references."""
    schema = model_of(cls).model_json_schema(ref_template="#/$defs/{model}")
    definitions |= schema.pop("$defs", {})
    schema.pop("title", None)
    linked: dict[str, Any] = _linked(schema)
    return linked


def _linked(value: Any) -> Any:
    if isinstance(value, dict):
        if "x-component" in value:
            rest = {key: item for key, item in value.items() if key != "x-component"}
            return {"anyOf": [_component(value["x-component"]), *NOTHING], **rest}
        kept = {k: v for k, v in value.items() if k != "title" or not isinstance(v, str)}
        return {key: _linked(item) for key, item in kept.items()}
    return [_linked(item) for item in value] if isinstance(value, list) else value
