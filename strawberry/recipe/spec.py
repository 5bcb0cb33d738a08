"""A resolved recipe: every component with its full name, every field with its value.

Frozen values from `load_recipe`. Locations are kept for later errors.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from strawberry.errors import (
    FieldError,
    Location,
    PluginError,
    Problem,
    RecipeError,
    StrawberryError,
)
from strawberry.figures import preformatted
from strawberry.plugin import Plugins, RegistryEntry
from strawberry.recipe.fields import ModelFields, RecurFields, TrainFields
from strawberry.recipe.origin import Origin
from strawberry.recipe.tree import Node


@dataclass(frozen=True, slots=True)
class Located:
    """The location of a mapping, and of each key that was written."""

    path: str = ""
    location: Location | None = None
    fields: Mapping[str, Location] = field(default_factory=dict)

    def problem(self, name: str, message: str) -> Problem:
        """A problem at field `name` if it was written, else at the mapping."""
        path = f"{self.path}.{name}" if name else self.path
        return Problem(message, self.fields.get(name, self.location), path.lstrip("."))


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """A resolved and validated component.

    Attributes:
        kind: its kind, such as `attention`.
        use: its full name, `plugin/name`.
        fields: all its fields, defaults included; a nested component is a ComponentSpec.
        explicit: the fields that the recipe wrote.
        entry: its registry entry.
        at: its location in the recipe.
    """

    kind: str
    use: str
    fields: Mapping[str, Any]
    explicit: frozenset[str] = field(compare=False)
    entry: RegistryEntry = field(compare=False)
    at: Located = field(default_factory=Located, compare=False)

    def problem(self, name: str, message: str) -> Problem:
        """A problem at field `name` if it was written, else at the component."""
        return self.at.problem(name, message)

    def construct(self, site: Any, *, contract: type = object) -> Any:
        """The component, constructed with its site, which its contract names, and with its fields.

        Raises:
            RecipeError: its constructor rejects a field; located in the recipe.
            PluginError: it can't be imported, or does not derive from `contract`.
        """
        with self.located():
            try:
                component = self.entry.load()(site, **self.fields)
            except FieldError:
                raise
            except ValueError as error:
                raise StrawberryError(str(error)) from error
        if not isinstance(component, contract):
            raise PluginError(
                f"plugin {self.entry.plugin!r}: {self.kind} {self.entry.name!r} "
                f"({self.entry.where}) is not a {contract.__name__}"
            )
        return component

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Add the recipe location to an error that the component raises."""
        try:
            yield
        except (RecipeError, PluginError):
            raise
        except FieldError as error:
            raise RecipeError([self.problem(error.field, str(error))]) from error
        except StrawberryError as error:
            raise RecipeError([self.problem("", str(error))]) from error

    def to_dict(self) -> dict[str, Any]:
        """The component as a recipe would write it, with every field."""
        return {"use": self.use, **{name: _plain(value) for name, value in self.fields.items()}}


Components: TypeAlias = Mapping[str, ComponentSpec]
"""The components at a place, by their recipe keys, in the order of the kinds."""


class ComponentAt:
    """An attribute of a place: its component of a kind, or None."""

    def __init__(self, kind: str, doc: str) -> None:
        self.kind, self.__doc__ = kind, doc

    def __get__(self, place: Any, owner: type) -> ComponentSpec | None:
        """The component; of the class itself there is none."""
        return None if place is None else place.components.get(self.kind)


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """A block, the leaf of a stack: its parts, and overrides of the model's components."""

    components: Components = field(default_factory=dict)
    at: Located = field(default_factory=Located, compare=False)

    attention = ComponentAt("attention", "The token mixer.")
    ffn = ComponentAt("ffn", "The position-wise network.")
    norm = ComponentAt("norm", "Replaces the model's norm.")
    positional = ComponentAt("positional", "Replaces the model's positional component.")
    residual = ComponentAt("residual", "Replaces the model's in how this block's parts join.")
    weights = ComponentAt("weights", "The weight source of this block, if it has its own.")

    def to_dict(self) -> dict[str, Any]:
        """As a recipe would write it."""
        parts = _plain(self.components)
        return parts if self.attention or self.ffn else {"attention": "none", **parts}


@dataclass(frozen=True, slots=True)
class RepeatSpec:
    """`count` copies of a stack, each with its own weights."""

    count: int
    stack: tuple[NodeSpec, ...]
    components: Components = field(default_factory=dict)
    at: Located = field(default_factory=Located, compare=False)

    weights = ComponentAt("weights", "The weight source of everything inside, if it has its own.")

    def to_dict(self) -> dict[str, Any]:
        """As a recipe would write it."""
        return {"repeat": self.count, **_plain(self.components), "stack": _plain(self.stack)}


@dataclass(frozen=True, kw_only=True)
class RecurSpec(RecurFields):
    """`count` recursion steps over a stack with shared weights; `router` chooses the tokens."""

    count: int
    stack: tuple[NodeSpec, ...]
    components: Components = field(default_factory=dict)
    at: Located = field(default_factory=Located, compare=False)

    weights = ComponentAt("weights", "The weight source of everything inside, if it has its own.")
    router = ComponentAt("router", "Chooses the tokens of each step, if not all take every one.")
    loop = ComponentAt(
        "loop", "Runs the steps in its own way; None if they run one after the other."
    )

    def to_dict(self) -> dict[str, Any]:
        """As a recipe would write it."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(RecurFields)}
        inside = {**_plain(self.components), "stack": _plain(self.stack)}
        return {"recur": self.count, **fields, **inside}


NodeSpec: TypeAlias = BlockSpec | RepeatSpec | RecurSpec


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ModelFields):
    """The `model` section.

    Attributes:
        components: the components next to the stack, which apply where no block overrides them.
        stack: the nodes, first to last.
    """

    components: Components
    stack: tuple[NodeSpec, ...]
    at: Located = field(default_factory=Located, compare=False)

    @property
    def norm(self) -> ComponentSpec:
        """The normalisation before each part of a block, and before the head."""
        return self.components["norm"]

    @property
    def positional(self) -> ComponentSpec:
        """The positional component."""
        return self.components["positional"]

    @property
    def weights(self) -> ComponentSpec:
        """The weight source of blocks outside any other scope."""
        return self.components["weights"]


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimizer, and the parameters it takes.

    Attributes:
        component: the optimizer.
        params: a kind of parameter (`matrix`, `embedding`, ...) or a pattern over names such as
            `*.attention.*`; null takes all remaining ones.
    """

    component: ComponentSpec
    params: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a recipe would write it."""
        params = {} if self.params is None else {"params": self.params}
        return {**self.component.to_dict(), **params}


@dataclass(frozen=True, kw_only=True)
class TrainSpec(TrainFields):
    """The `train` section, located."""

    at: Located = field(default_factory=Located, compare=False)

    @property
    def least_rate(self) -> float:
        """The final learning rate: a tenth of the peak, unless given."""
        return self.learning_rate / 10 if self.min_lr is None else self.min_lr


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: name of its runs.
        seed: seed of weights, rows and dropout, unless `train` has separate ones.
        components: the components of its sections, by key, in the order of the kinds.
        requires: required distributions, as requirement strings.
        scale: growth in a ladder: by path, the power of the width with which a number grows.
        source: the file of the recipe.
        origin: the folders of its relative paths.
        notes: notes on how the file was interpreted.
        plugins: the plugins that resolved it.
        tree: the tree of the file, with extends and overrides applied; `patch` starts from it.
    """

    name: str
    seed: int
    model: ModelSpec
    components: Mapping[str, Section]
    train: TrainSpec
    requires: tuple[str, ...] = ()
    scale: Mapping[str, float] = field(default_factory=dict)
    source: Path = field(default=Path("recipe.yaml"), compare=False)
    origin: Origin = field(default_factory=Origin, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    plugins: Plugins | None = field(default=None, compare=False, repr=False)
    tree: Node | None = field(default=None, compare=False, repr=False)

    @property
    def data(self) -> ComponentSpec:
        """The source of text or tokens."""
        return self._one("data")

    @property
    def tokenizer(self) -> ComponentSpec:
        """The tokenizer."""
        return self._one("tokenizer")

    @property
    def schedule(self) -> ComponentSpec:
        """The learning-rate schedule."""
        return self._one("schedule")

    @property
    def objective(self) -> ComponentSpec:
        """The objective of a batch."""
        return self._one("objective")

    @property
    def optimizer(self) -> tuple[OptimizerSpec, ...]:
        """The optimizers; each parameter belongs to the first that selects it."""
        return cast("tuple[OptimizerSpec, ...]", self.components["optimizer"])

    @property
    def averaging(self) -> tuple[ComponentSpec, ...]:
        """The averages of its weights that are kept."""
        return cast("tuple[ComponentSpec, ...]", self.components.get("averaging", ()))

    @property
    def curriculum(self) -> tuple[ComponentSpec, ...]:
        """What changes over the steps."""
        return cast("tuple[ComponentSpec, ...]", self.components.get("curriculum", ()))

    @property
    def measures(self) -> tuple[ComponentSpec, ...]:
        """Metrics of evaluations besides the loss."""
        return cast("tuple[ComponentSpec, ...]", self.components.get("measures", ()))

    @property
    def trackers(self) -> tuple[ComponentSpec, ...]:
        """The trackers of its runs."""
        return cast("tuple[ComponentSpec, ...]", self.components.get("trackers", ()))

    def _one(self, key: str) -> ComponentSpec:
        return cast("ComponentSpec", self.components[key])

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a file would write it, with every field; loads to an equal recipe."""
        lists = {key: _plain(v) for key, v in self.components.items() if _is_list(v)}
        sections = {
            key: _plain(value[0]) if isinstance(value, tuple) and len(value) == 1 else _plain(value)
            for key, value in self.components.items()
            if key not in lists
        }
        return {
            "name": self.name,
            "seed": self.seed,
            **({"requires": list(self.requires)} if self.requires else {}),
            **({"scale": dict(self.scale)} if self.scale else {}),
            "model": {
                **_fields_of(self.model),
                **_plain(self.model.components),
                "stack": _plain(self.model.stack),
            },
            **sections,
            "train": _fields_of(self.train),
            **{key: items for key, items in lists.items() if items},
        }

    def to_yaml(self) -> str:
        """`to_dict` as YAML."""
        from strawberry.recipe.yaml import dump

        return dump(self.to_dict())

    def _repr_html_(self) -> str:
        """Its YAML, for a notebook."""
        return preformatted(self.to_yaml())


Section: TypeAlias = ComponentSpec | tuple[ComponentSpec, ...] | tuple[OptimizerSpec, ...]
"""The contents of a section: a component, a list of them, or optimizers."""


def _is_list(section: Section) -> bool:
    return isinstance(section, tuple) and not any(isinstance(s, OptimizerSpec) for s in section)


def _fields_of(spec: ModelSpec | TrainSpec) -> dict[str, Any]:
    """The plain fields of a section."""
    names = [item.name for item in dataclasses.fields(spec)]
    beside = {"at", "components", "stack"}
    return {name: _plain(getattr(spec, name)) for name in names if name not in beside}


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
