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
        default: the full name of the component whose fields are meant, at the first of its places,
            where a recipe gives fields alone; and which stands there if a recipe names none, unless
            `nothing` may. None for no such component.
        many: how many may stand at a place.
        selects: whether several share the parameters out, each by a selector `params`.
        nothing: whether `none` in its place leaves it out; else `none` is a name like others.
        held: the path of the field that holds one, where it has no place of its own.
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
    selects: bool = False
    nothing: bool = False
    held: str = ""
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
        return self.key if "recipe" in self.places and self.many != "list" else self.held


CORE: Final = (
    ComponentKind(
        "attention", "token mixer", "strawberry.contracts:Attention", ("block",),
        nothing=True, plain="none", usual="mha",
    ),
    ComponentKind(
        "ffn", "position-wise network", "strawberry.contracts:FFN", ("block",),
        nothing=True, plain="none", usual="swiglu",
    ),
    ComponentKind(
        "norm", "normalisation", "strawberry.contracts:Norm", ("model", "block"),
        default="strawberry/rmsnorm", plain="none", usual="rmsnorm",
    ),
    ComponentKind(
        "positional", "positional component", "strawberry.contracts:Positional", ("model", "block"),
        default="strawberry/none", plain="none", usual="rope",
    ),
    ComponentKind(
        "router", "router of tokens to recursion depths", "strawberry.contracts:Router", ("recur",),
        default="strawberry/token_choice", nothing=True,
    ),
    ComponentKind(
        "weights", "weight source", "strawberry.contracts:WeightSource", ("model", "entry"),
        default="strawberry/owned", plain="owned", usual="owned",
    ),
    ComponentKind(
        "data", "data source", "strawberry.contracts:DataSource", ("recipe",),
        default="strawberry/stdlib",
    ),
    ComponentKind(
        "tokenizer", "tokenizer", "strawberry.contracts:TokenizerSource", ("recipe",),
        default="strawberry/bpe",
    ),
    ComponentKind(
        "optimizer", "optimizer", "strawberry.contracts:OptimizerSource", ("recipe",),
        default="strawberry/adamw", many="either", selects=True,
    ),
    ComponentKind(
        "schedule", "learning-rate schedule", "strawberry.contracts:Schedule", ("recipe",),
        default="strawberry/trapezoid",
    ),
    ComponentKind("task", "synthetic task", "strawberry.contracts:Task", held="data.task"),
    ComponentKind(
        "tracker", "observer of runs", "strawberry.contracts:Tracker", ("recipe",), key="trackers",
        many="list",
    ),
    ComponentKind("executor", "way to run many trainings", "strawberry.contracts:Executor"),
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
