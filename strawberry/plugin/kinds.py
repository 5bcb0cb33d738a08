"""The kinds of components: one row each, from which the grammar of recipes follows.

The reader, the JSON Schema, `Recipe.to_dict`, the paths with `*`, the axes of ablations, what they
leave out, and the models that `strawberry check` builds all take their knowledge of a kind from its
row. A new kind is a row here, or one that a plugin registers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Place: TypeAlias = Literal["recipe", "model", "block", "entry", "recur"]
"""Where a component may stand: a section of a recipe, a key of its `model`, of a block, of any
entry of a stack, of a `recur`."""
Many: TypeAlias = Literal["one", "list", "either"]
"""How many components stand at a place: one, a list of any length, or one or a list of some."""


@dataclass(frozen=True, slots=True)
class ComponentKind:
    """A kind of component.

    Attributes:
        name: as in `strawberry components NAME`.
        summary: what a component of this kind is, in a few words.
        contract: the class that components derive from, as `module:attribute`.
        places: where one may stand in a recipe; none if only fields of components hold it, or
            something that is no recipe.
        key: the word that a recipe has for it.
        default: the full name of the component that stands where a recipe names none; None if
            nothing then stands there.
        many: how many may stand at a place.
        plain: what takes its place when an ablation leaves it out; None for `null`.
        usual: the component beside which `strawberry check` judges others; "" for none.
    """

    name: str
    summary: str
    contract: str
    places: tuple[Place, ...] = ()
    key: str = ""
    default: str | None = None
    many: Many = "one"
    plain: str | None = None
    usual: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.name)

    @property
    def is_part(self) -> bool:
        """Whether it is one of the parts that a block computes with, and may lack."""
        return "block" in self.places and "model" not in self.places

    @property
    def path(self) -> str:
        """Where it stands in a recipe, `*` for every block; "" if nowhere that has one path."""
        if "model" in self.places:
            return f"model.{self.key}"
        if "block" in self.places:
            return f"model.stack.*.{self.key}"
        return self.key if "recipe" in self.places and self.many != "list" else ""


_MODEL: Final = "strawberry.contracts"

CORE: Final = (
    ComponentKind(
        "attention", "token mixer", f"{_MODEL}:Attention", ("block",), plain="none", usual="mha"
    ),
    ComponentKind(
        "ffn", "position-wise network", f"{_MODEL}:FFN", ("block",), plain="none", usual="swiglu"
    ),
    ComponentKind(
        "norm", "normalisation", f"{_MODEL}:Norm", ("model", "block"),
        default="strawberry/rmsnorm", plain="none", usual="rmsnorm",
    ),
    ComponentKind(
        "positional", "positional component", f"{_MODEL}:Positional", ("model", "block"),
        default="strawberry/none", plain="none", usual="rope",
    ),
    ComponentKind(
        "router", "router of tokens to recursion depths", f"{_MODEL}:Router", ("recur",),
        default="strawberry/token_choice",
    ),
    ComponentKind(
        "weights", "weight source", f"{_MODEL}:Weights", ("model", "entry"),
        default="strawberry/owned", plain="owned", usual="owned",
    ),
    ComponentKind(
        "optimizer", "optimizer", f"{_MODEL}:Optimizer", ("recipe",),
        default="strawberry/adamw", many="either",
    ),
    ComponentKind(
        "schedule", "learning-rate schedule", f"{_MODEL}:Schedule", ("recipe",),
        default="strawberry/trapezoid",
    ),
    ComponentKind(
        "data", "data source", "strawberry.contracts.data:DataSource", ("recipe",),
        default="strawberry/stdlib",
    ),
    ComponentKind(
        "tokenizer", "tokenizer", "strawberry.contracts.data:TokenizerSource", ("recipe",),
        default="strawberry/bpe",
    ),
    ComponentKind("task", "synthetic task", "strawberry.contracts.data:Task"),
    ComponentKind(
        "tracker", "observer of runs", f"{_MODEL}:Tracker", ("recipe",), key="trackers",
        many="list",
    ),
    ComponentKind(
        "executor", "way to run many trainings", "strawberry.contracts.execution:Executor"
    ),
)  # fmt: skip


class Kinds:
    """The kinds that there are: Strawberry's own, then those of plugins, each by its name."""

    def __init__(self, brought: Iterable[ComponentKind] = ()) -> None:
        self._rows = {kind.name: kind for kind in (*CORE, *brought)}

    def __getitem__(self, name: str) -> ComponentKind:
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[ComponentKind]:
        return iter(self._rows.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all, in order."""
        return tuple(self._rows)

    def at(self, *places: Place) -> list[ComponentKind]:
        """Those that may stand at one of these places."""
        return [kind for kind in self if any(place in kind.places for place in places)]

    def keys(self, *places: Place) -> tuple[str, ...]:
        """The words of a recipe for those that may stand at one of these places."""
        return tuple(kind.key for kind in self.at(*places))
