"""The subject of checks: a small model around one component, or a recipe's model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from strawberry.contracts import FFN, Attention, Use
from strawberry.errors import Location, StrawberryError
from strawberry.model.build import build
from strawberry.model.language_model import LanguageModel
from strawberry.plugin import ComponentKind, Kinds, Plugins, RegistryEntry
from strawberry.recipe.around import around
from strawberry.recipe.load import patch
from strawberry.recipe.spec import Recipe
from strawberry.recipe.validate import validate
from strawberry.referee.situations import disturbed

LENGTH: Final = 13
"""Sequence length: odd, so that no chunk or group divides it."""
SHORT: Final = 67
LONG: Final = 256
"""Length of the sequences in which the referee looks for forbidden dependence."""
SEED: Final = 5
SMALL: Final = {"vocab_size": 61, "block_size": 64, "n_embd": 32}
TRAIN: Final = {"max_iters": 100, "batch_size": 4}


@dataclass(frozen=True)
class Subject:
    """A model to check.

    Attributes:
        name: `kind/name` of the component, or the recipe's name.
        kind: the component's kind; `model` for a recipe.
        recipe: the recipe of the model.
        entry: the component; None for a recipe.
        plain: the same recipe with the built-in of that kind; None for a recipe.
        fields: the component's given fields.
        picture: the file of a picture, for a check that draws one; None for none.
    """

    name: str
    kind: str
    recipe: Recipe
    entry: RegistryEntry | None = None
    plain: Recipe | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    picture: Path | None = None
    _built: dict[str, LanguageModel] = field(default_factory=dict, repr=False)

    @property
    def kinds(self) -> Kinds:
        """The registered kinds."""
        assert self.recipe.plugins is not None
        return self.recipe.plugins.registry.kinds

    def model(self, *, training: bool = False, dtype: torch.dtype = torch.float32) -> LanguageModel:
        """A new model, identical at every call; raises RecipeError if it can't be built."""
        if "" not in self._built:
            self._built[""] = build(self.recipe)
        return copy.deepcopy(self._built[""]).to(dtype).train(training)

    def awake(self, *, training: bool = False, dtype: torch.dtype = torch.float32) -> LanguageModel:
        """As `model`, with every weight disturbed, so that a gate at zero hides nothing."""
        return disturbed(self.model(dtype=dtype)).train(training)

    def tokens(self, batch: int = 3, length: int | None = None) -> Tensor:
        """Token ids (batch, length), identical at every call."""
        generator = torch.Generator().manual_seed(SEED)
        length = min(LENGTH, self.recipe.model.block_size) if length is None else length
        return torch.randint(self.recipe.model.vocab_size, (batch, length), generator=generator)

    def long(self) -> tuple[LanguageModel, Sequence[int]]:
        """A model for the referee, and the length of its sequences.

        The length exceeds the block size if nothing limits the model. A small model around a
        component is built for `LONG` tokens.
        """
        recipe = self.recipe if self.entry is None else with_length(self.recipe, LONG)
        model = build(recipe)
        block_size, limit = recipe.model.block_size, model.limit()
        lengths = {min(SHORT, block_size), block_size}
        if limit is None and self.entry is not None:
            lengths.add(block_size + SHORT)
        return model, sorted(lengths)

    def parts(self, model: LanguageModel) -> list[tuple[str, nn.Module]]:
        """The mixers and networks to inspect, by name: the component's own, or all."""
        wanted: tuple[type, ...] = (Attention, FFN)
        if self.entry is not None:
            wanted = (self.entry.load(),)
        parts = [(name, m) for name, m in model.named_modules() if isinstance(m, wanted)]
        return [(name, m) for name, m in parts if isinstance(m, (Attention, FFN))]

    def call(self, model: LanguageModel, part: nn.Module) -> tuple[Tensor, Callable[..., Tensor]]:
        """The input of `part` in a pass over `tokens`, and a function of other inputs.

        The function takes (B, T, C) and returns the part's output, in the same use.
        """
        seen: list[tuple[Tensor, Use]] = []
        handle = part.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[1])))
        with torch.no_grad():
            model.trunk(self.tokens())
        handle.remove()
        x, use = seen[0]

        def run(y: Tensor) -> Tensor:
            result = part(y, replace(use, memo={}))
            return result[0] if isinstance(result, tuple) else result

        return x.detach(), run


def of_recipe(recipe: Recipe) -> Subject:
    """The model of a recipe."""
    return Subject(recipe.name, "model", recipe)


def of_component(
    kind: str, name: str, fields: Mapping[str, Any] | None = None, *, plugins: Plugins | None = None
) -> Subject:
    """A small model around a component: three block uses, two of them recurring.

    Args:
        kind: the name of a kind.
        name: the component's name in recipes.
        fields: its recipe fields that differ from the defaults.
        plugins: resolve names; None loads the plugins of this environment.

    Raises:
        StrawberryError: the component is unknown, or its kind has no checks.
        RecipeError: a field is wrong.
    """
    plugins = plugins or Plugins.load()
    kinds = plugins.registry.kinds
    if kind not in kinds:
        known = ", ".join(kinds.names)
        raise StrawberryError(f"there are no checks for {kind}; there are for {known}")
    entry, row = plugins.registry.find(kind, name), kinds[kind]
    title = f"check {kind}/{name}"
    # Every component but a mixer has the usual mixer beside it, which rotates.
    rotary = kind != "attention" or "rotary" in cast("type[Attention]", entry.load()).honours
    beside = replace(row, around={**row.around, **getattr(entry.load(), "checked_with", {})})

    small: dict[str, Any] = {
        "name": "check",
        "model": {**SMALL, "positional": "rope" if rotary else "none"},
    }
    if "train" not in row.around:
        small["train"] = TRAIN

    def recipe(row: ComponentKind, use: str, given: Mapping[str, Any]) -> Recipe:
        tree = around(row, {"use": use, **given}, small, Location(title, 1, 1))
        return validate(tree, Path(title), plugins)

    base = recipe(row, row.usual, {}) if row.usual else None
    own = recipe(beside, name, fields or {})
    return Subject(f"{kind}/{name}", kind, own, entry, base, fields or {})


def with_length(recipe: Recipe, block_size: int) -> Recipe:
    """The same recipe for sequences of another length, one in a batch."""
    return patch(recipe, {"model.block_size": block_size, "train.batch_size": 1})
