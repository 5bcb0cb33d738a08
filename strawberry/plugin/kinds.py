"""The kinds of components: one row each, from which the recipe grammar follows.

A row defines the kind for the reader, the JSON Schema, `Recipe.to_dict`, paths with `*`, the axes
of ablations, leave-one-out, and the models of `strawberry check`. A new kind is a row here, or one
that a plugin registers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from strawberry.errors import PluginError
from strawberry.plugin.words import did_you_mean

Place: TypeAlias = Literal["recipe", "model", "block", "entry", "recur"]
"""Places of a component: a section of a recipe, a key of its `model`, of a block, of any entry of a
stack, or of a `recur`."""
Many: TypeAlias = Literal["one", "list", "either"]
"""Number of components at a place: one, a list of any length, or one or a list of some."""


@dataclass(frozen=True, slots=True)
class ComponentKind:
    """A kind of component.

    Attributes:
        name: its name, as in `strawberry components NAME`.
        summary: a description in a few words.
        contract: the base class of its components, as `module:attribute`.
        places: where a component may stand in a recipe; none if only fields of components hold it,
            or something other than a recipe.
        key: its word in a recipe.
        default: full name of the default component. It is meant, at the first of its places, where
            a recipe gives fields alone. It also fills a place that a recipe leaves out, unless
            `nothing` is set. None for no default.
        many: the number of components at a place.
        selects: whether several share the parameters, each with a selector `params`.
        nothing: whether `none` leaves its place empty; otherwise `none` is an ordinary name.
        held: path of the field that holds a component, for a kind without a place.
        plain: its replacement when an ablation leaves it out; None for `null`.
        around: other recipe settings for checking a component, by path.
        checks: for a kind of a plugin, further checks of `strawberry check`: functions of a
            `Subject`, as `module:attribute`, by name.
        role: what one does where it stands, for the guide; "" for the summary.
        usual: the component that `strawberry check` compares others with; "" for none.
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
    role: str = ""
    around: Mapping[str, Any] = field(default_factory=dict, compare=False)
    checks: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.name)

    @property
    def is_part(self) -> bool:
        """True for the optional parts of a block."""
        return "block" in self.places and "model" not in self.places

    @property
    def is_own_nothing(self) -> bool:
        """True if a component called `none` does nothing."""
        return self.plain == "none" and not self.nothing

    @property
    def path(self) -> str:
        """Its path in a recipe, with `*` for every block; "" without a single path."""
        if "model" in self.places:
            return f"model.{self.key}"
        if "block" in self.places:
            return f"model.stack.*.{self.key}"
        return self.key if "recipe" in self.places and self.many != "list" else self.held

    @property
    def checked_at(self) -> str:
        """Its path in the recipe that `strawberry check` builds; "" without one.

        That recipe has a block, and a recurring entry.
        """
        if "entry" in self.places or "recur" in self.places:
            return f"model.stack[1].{self.key}"
        return self.path or (self.key if "recipe" in self.places else "")


TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
TAKEN: Final = frozenset(
    ["name", "seed", "requires", "model", "train", "extends", "set", "stack", "repeat", "recur"]
)
"""Reserved words of recipes."""
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SHORT: Final = {
    "max_iters": 8, "batch_size": 2, "log_interval": 1, "eval_interval": 4, "eval_iters": 1,
    "checkpoint_interval": 3, "warmup_iters": 2,
}  # fmt: skip

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
        "block", "order of a block's parts", "strawberry.contracts:Block", ("model", "block"),
        default="strawberry/sequential", plain="sequential", usual="sequential",
    ),
    ComponentKind(
        "residual", "residual stream, and joining it", "strawberry.contracts:Residual",
        ("model", "block"),
        default="strawberry/sum", plain="sum", usual="sum",
    ),
    ComponentKind(
        "embedding", "turns token ids into vectors", "strawberry.contracts:Embedding", ("model",),
        default="strawberry/tokens", plain="tokens", usual="tokens",
    ),
    ComponentKind(
        "parametrization", "initial values, multipliers and rate factors of tensors",
        "strawberry.contracts:Parametrization", ("model",),
        default="strawberry/standard", plain="standard", usual="standard",
    ),
    ComponentKind(
        "norm", "normalisation", "strawberry.contracts:Norm", ("model", "block"),
        default="strawberry/rmsnorm", plain="none", usual="rmsnorm",
        role="normalisation before each part of a block, and before the head",
    ),
    ComponentKind(
        "positional", "positional component", "strawberry.contracts:Positional", ("model", "block"),
        default="strawberry/none", plain="none", usual="rope",
        role="how positions are encoded",
    ),
    ComponentKind(
        "router", "router of tokens to recursion depths", "strawberry.contracts:Router", ("recur",),
        default="strawberry/token_choice", nothing=True, around={"model.stack[1].recur": 3},
        role="chooses the tokens that run each step; the others skip its work",
    ),
    ComponentKind(
        "loop", "way to run a recursion", "strawberry.contracts:Loop", ("recur",),
        nothing=True, around={"model.stack[1].recur": 3},
        role="how a `recur` runs its stack: how many steps, on which tokens, what happens between",
    ),
    ComponentKind(
        "weights", "weight source", "strawberry.contracts:WeightSource", ("model", "entry"),
        default="strawberry/owned", plain="owned", usual="owned",
        around={"model.stack[1].recur": 3},
        role="the source of projection matrices",
    ),
    ComponentKind(
        "data", "data source", "strawberry.contracts:DataSource", ("recipe",),
        default="strawberry/stdlib", around={"model.vocab_size": 512, "tokenizer": "bytes"},
        role="source of the text or tokens",
    ),
    ComponentKind(
        "tokenizer", "tokenizer", "strawberry.contracts:TokenizerSource", ("recipe",),
        default="strawberry/bpe", around={"model.vocab_size": 512},
        role="turns text into token ids",
    ),
    ComponentKind(
        "optimizer", "optimizer", "strawberry.contracts:OptimizerSource", ("recipe",),
        default="strawberry/muon", many="either", selects=True,
        role="updates the parameters",
    ),
    ComponentKind(
        "schedule", "learning-rate schedule", "strawberry.contracts:Schedule", ("recipe",),
        default="strawberry/wsd",
        role="learning rate of each step",
    ),
    ComponentKind(
        "objective", "the loss of a batch", "strawberry.contracts:Objective", ("recipe",),
        default="strawberry/next_token", plain="next_token", usual="next_token",
    ),
    ComponentKind(
        "averaging", "average of weights", "strawberry.contracts:Averaging", ("recipe",),
        many="list",
    ),
    ComponentKind(
        "curriculum", "settings that change during training", "strawberry.contracts:Curriculum",
        ("recipe",), many="list",
    ),
    ComponentKind(
        "measure", "further metrics of evaluations", "strawberry.contracts:Measure", ("recipe",),
        key="measures", many="list",
    ),
    ComponentKind(
        "task", "synthetic task", "strawberry.contracts:Task", held="data.task",
        around={"model.vocab_size": 512, "data.use": "synthetic"},
    ),
    ComponentKind(
        "tracker", "observer of runs", "strawberry.contracts:Tracker", ("recipe",), key="trackers",
        many="list",
        around={
            "model.vocab_size": 257, "model.block_size": 16, "model.dropout": 0.1,
            "tokenizer": "bytes", "train": _SHORT,
        },
        role="receives the metrics of a run, such as TensorBoard",
    ),
    ComponentKind(
        "executor", "way to run many trainings", "strawberry.contracts:Executor",
        around={
            "model.vocab_size": 16, "model.block_size": 16, "train": _SHORT,
            "data": {"use": "synthetic", "task": "memorization"},
        },
    ),
)  # fmt: skip


class Kinds:
    """The known kinds by name: Strawberry's own, then those of plugins."""

    def __init__(self, brought: Iterable[ComponentKind] = ()) -> None:
        self._rows = {kind.name: kind for kind in CORE}
        for kind in brought:
            self.add(kind)

    def add(self, kind: ComponentKind) -> None:
        """Add a kind as a new row.

        Raises:
            PluginError: its name or recipe word is taken or invalid, or a place, contract or check
                is invalid.
        """
        words = ("name", kind.name), ("key", kind.key)
        for what, word in words:
            if not isinstance(word, str) or not _WORD.fullmatch(word):
                message = f"its {what} must be lower-case letters, digits and _, got {word!r}"
                raise PluginError(f"kind {kind.name!r}: {message}")
        if kind.name in self._rows:
            raise PluginError(f"kind {kind.name!r}: a kind of that name exists")
        if kind.key in TAKEN or any(kind.key == other.key for other in self):
            raise PluginError(f"kind {kind.name!r}: {kind.key!r} is a reserved word in recipes")
        for place in kind.places:
            if place not in get_args(Place):
                known = ", ".join(get_args(Place))
                raise PluginError(f"kind {kind.name!r}: unknown place {place!r}; places: {known}")
        for target in (kind.contract, *kind.checks.values()):
            if not TARGET.fullmatch(target):
                message = f"expected 'module:attribute', got {target!r}"
                raise PluginError(f"kind {kind.name!r}: {message}")
        if kind.many != "one" and kind.places != ("recipe",):
            raise PluginError(
                f"kind {kind.name!r}: only a kind of the section `train` or `model` can have "
                "several components"
            )
        self._rows[kind.name] = kind

    def __getitem__(self, name: str) -> ComponentKind:
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[ComponentKind]:
        return iter(self._rows.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all kinds, in order."""
        return tuple(self._rows)

    @property
    def brought(self) -> list[ComponentKind]:
        """The kinds that plugins added."""
        return list(self)[len(CORE) :]

    def at(self, *places: Place) -> list[ComponentKind]:
        """The kinds that may stand at one of these places."""
        return [kind for kind in self if any(place in kind.places for place in places)]

    def keys(self, *places: Place) -> tuple[str, ...]:
        """The recipe words of the kinds that may stand at one of these places."""
        return tuple(kind.key for kind in self.at(*places))

    def unknown(self, name: str) -> str:
        """The message for an unknown kind."""
        near = did_you_mean(name, self.names) or f"; kinds: {', '.join(self.names)}"
        return f"unknown kind {name!r}{near}"
