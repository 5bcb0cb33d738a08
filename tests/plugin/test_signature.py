"""A component's signature, read as the schema of its recipe fields."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal

import pydantic
import pytest

from strawberry.errors import PluginError
from strawberry.plugin import Kind
from strawberry.plugin.signature import (
    REQUIRED,
    description_of,
    fields_of,
    model_of,
    source_of,
    summary_without_import,
    type_text,
)
from tests.plugin.fakes import FakeSite

if typing.TYPE_CHECKING:
    from nowhere import Site  # type: ignore[import-not-found]


class Spec:
    """Stands for a component's spec."""


class Base:
    """A base.

    Args:
        copy: from the base.
    """


class Part(Base):
    """Does a thing,
    in two lines.

    And more.

    Args:
        width: how wide,
            in features.
        mode (str): which of two.

    Raises:
        ValueError: never.
    """  # noqa: D205 (a summary of two lines is what is tested)

    def __init__(
        self,
        site: Site,
        *,
        width: Annotated[int, pydantic.Field(ge=1)],
        mode: Literal["a", "b"] = "a",
        betas: tuple[float, float] = (0.9, 0.95),
        inner: Annotated[Spec, Kind("ffn")] | None = None,
        many: list[Annotated[Spec, Kind("norm")]] | None = None,
        copy: bool = False,
    ) -> None:
        """Make it."""


class Wider(Part):
    """A part of another default width.

    Args:
        depth: how deep.
    """

    def __init__(self, *, depth: int = 2, width: int = 8, **shared: Any) -> None:
        super().__init__(width=width, **shared)


class Fixed(Wider):
    """Says all of its fields."""

    def __init__(self, *, depth: int = 3) -> None:
        super().__init__(depth=depth)


def test_fields_of_base_classes() -> None:
    """`**shared` brings the fields of the base, with their texts; without it there are none."""
    depth, width, *rest = fields_of(Wider)

    assert (depth.default, depth.doc) == (2, "how deep.")
    assert (width.default, width.doc) == (8, "how wide, in features.")
    assert tuple(rest) == fields_of(Part)[1:]
    assert [field.name for field in fields_of(Fixed)] == ["depth"]


def test_fields() -> None:
    """Fields are the keyword-only parameters, in order, with evaluated types and their texts."""
    width, mode, betas, inner, many, copy = fields_of(Part)

    assert (width.name, width.default, width.doc) == ("width", REQUIRED, "how wide, in features.")
    assert width.required
    assert (mode.default, mode.doc) == ("a", "which of two.")
    assert Literal["a", "b"] == mode.annotation
    assert (betas.doc, betas.default) == ("", (0.9, 0.95))
    assert (inner.kind, many.kind, copy.kind) == ("ffn", "norm", None)
    assert copy.doc == "from the base."


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, "int"),
        (float | None, "float | None"),
        (typing.Optional[str], "str | None"),  # noqa: UP045 (the form is what is tested)
        (Literal["pre", 2], '"pre" | 2'),
        (tuple[int, ...], "tuple[int, ...]"),
        (dict[str, list[float]], "dict[str, list[float]]"),
        (Annotated[int, pydantic.Field(ge=1, lt=9)], "int >= 1 < 9"),
        (Annotated[Spec, Kind("ffn")] | None, "ffn component | None"),
        (Any, "any"),
    ],
)
def test_type_text(annotation: Any, expected: str) -> None:
    """Types are shown as a reader would write them."""
    assert expected == type_text(annotation)


def test_model_accepts_json() -> None:
    """Valid JSON is filled with defaults; lists stand for tuples, ints for floats."""
    model = model_of(Part).model_validate_json('{"width": 3, "betas": [0, 1], "inner": "mlp"}')

    assert model.model_dump() == {
        "width": 3, "mode": "a", "betas": (0.0, 1.0), "inner": "mlp", "many": None, "copy": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "kind"),
    [
        ("{}", ("width",), "missing"),
        ('{"width": 0}', ("width",), "greater_than_equal"),
        ('{"width": "3"}', ("width",), "int_type"),
        ('{"width": true}', ("width",), "int_type"),
        ('{"width": 1, "mode": "c"}', ("mode",), "literal_error"),
        ('{"width": 1, "betas": [NaN, 1]}', ("betas", 0), "finite_number"),
        ('{"width": 1, "widht": 1}', ("widht",), "extra_forbidden"),
    ],
)
def test_model_refuses(text: str, where: tuple[object, ...], kind: str) -> None:
    """Wrong types, bounds, words, infinities and unknown fields are errors with their place."""
    with pytest.raises(pydantic.ValidationError) as caught:
        model_of(Part).model_validate_json(text)

    (error,) = caught.value.errors()
    assert (where, kind) == (error["loc"], error["type"])


def test_schema() -> None:
    """The JSON Schema has descriptions, defaults, and marks where components go."""
    schema = model_of(Part).model_json_schema()

    assert schema["additionalProperties"] is False
    assert schema["required"] == ["width"]
    assert schema["properties"]["width"]["description"] == "how wide, in features."
    assert {"x-component": "ffn"} in schema["properties"]["inner"]["anyOf"]
    assert schema["properties"]["many"]["anyOf"][0]["items"] == {"x-component": "norm"}


class Unannotated:
    """Bad."""

    def __init__(self, *, x=1):  # type: ignore[no-untyped-def]
        """Make it."""


class Unknown:
    """Bad."""

    def __init__(self, *, x: Site) -> None:
        """Make it."""


class Private:
    """Bad."""

    def __init__(self, *, _x: int) -> None:
        """Make it."""


class Unvalidatable:
    """Bad."""

    def __init__(self, *, x: Spec) -> None:
        """Make it."""


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Unannotated, "field 'x' has no type annotation"),
        (Unknown, "can't evaluate the type of field 'x': NameError"),
        (Private, "field '_x' must not start with '_'"),
        (Unvalidatable, "can't validate its fields"),
    ],
)
def test_unusable_signature(cls: type, expected: str) -> None:
    """An author is told which field of which class can't be used, and why."""
    with pytest.raises(PluginError) as caught:
        model_of(cls)

    assert f"test_signature:{cls.__name__}" in str(caught.value)
    assert expected in str(caught.value)


def test_no_constructor() -> None:
    """A class without a constructor of its own has no fields."""
    assert fields_of(Spec) == ()


def test_source_and_description() -> None:
    """The class is found in its file, and described up to its first section."""
    source = source_of(Part)

    assert source is not None
    assert __file__ == str(source[0])
    assert description_of(Part) == "Does a thing, in two lines.\n\nAnd more."


def test_summary_is_read_without_an_import(site: FakeSite) -> None:
    """The first paragraph of a class is had without running its module."""
    site.module(
        "parts", 'raise AssertionError\nclass Good:\n    """One\n    line.\n\n    Two."""\n'
    )

    assert summary_without_import("parts:Good") == "One line."
    assert summary_without_import("parts:Other") == ""
    assert summary_without_import("no_such_parts:Good") == ""
    assert summary_without_import(Spec) == "Stands for a component's spec."
