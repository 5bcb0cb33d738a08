"""The cells of a plan: named patches of one recipe, each built once to check it."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from strawberry.ablate.axes import full_path
from strawberry.ablate.extra import needs
from strawberry.ablate.factors import shown
from strawberry.ablate.plan import Plan, Range, Values
from strawberry.ablate.planfile import EVERY
from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe, patch
from strawberry.recipe.grammar import kind_at
from strawberry.recipe.origin import Origin
from strawberry.recipe.spec import BlockSpec, Recipe, RecurSpec
from strawberry.recipe.tree import parse_path
from strawberry.recipe.walk import walk

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

POSITIONAL = "model.positional"
_OUTSIDE = re.compile(r"(optimizer|schedule)\b|train\.(?!document_mask$)")
"""Paths of values that `build` doesn't read: rates, and what goes by steps."""


@dataclass(frozen=True)
class Cell:
    """A column of the comparison: a named patch, and the resulting recipe.

    Attributes:
        name: unique in the plan.
        patch: the value of each changed path, in the order of application.
        recipe: the recipe, or None if the cell can't be built.
        skipped: the reason why it can't be built.
        resized: changes that make budgets agree, as `path: a -> b`.
    """

    name: str
    patch: Mapping[str, Any]
    recipe: Recipe | None
    skipped: str = ""
    resized: str = ""

    @functools.cached_property
    def model(self) -> LanguageModel:
        """The recipe's model on the meta device, built once; raises RecipeError if it can't be."""
        assert self.recipe is not None
        return build(self.recipe, "meta")

    def changed(self, more: Mapping[str, Any], base: Recipe) -> Cell:
        """The cell with further values, and the same model where they change none of it.

        Raises RecipeError if they are invalid.
        """
        patched = {**self.patch, **more}
        cell = replace(self, patch=patched, recipe=patch(base, patched))
        if "model" in self.__dict__ and all(map(_OUTSIDE.match, more)):
            cell.__dict__["model"] = self.model
        return cell


def cells(plan: Plan, plugins: Plugins) -> tuple[Recipe, list[Cell]]:
    """The recipe and all cells, baseline first. Cells that can't be built have a reason.

    Raises RecipeError or StrawberryError if the recipe or the baseline can't be built.
    """
    base = load_recipe(plan.recipe, plan.overrides, plugins=plugins)
    if plan.folder is not None:
        base = replace(base, origin=base.origin + Origin((plan.folder,)))
    kinds = plugins.registry.kinds
    vary = {path: _every(path, values, plugins) for path, values in plan.vary.items()}
    by_name: dict[str, Cell] = {}
    for name, patched in itertools.chain(_patches(plan, base, vary), plan.cells.items()):
        cell = _cell(name, {full_path(k, kinds): v for k, v in patched.items()}, base)
        if cell.name in by_name:
            raise StrawberryError(f"two cells have the same name {cell.name!r}")
        by_name[cell.name] = cell
    ordered = list(by_name.values())
    if not ordered or ordered[0].recipe is None:
        why = f": {ordered[0].skipped}" if ordered else ""
        raise StrawberryError(f"can't build the baseline{why}")
    return base, ordered


def _cell(name: str, patched: Mapping[str, Any], base: Recipe) -> Cell:
    """The cell; without its positional component if its mixers can't use it.

    The patch records that change, so every table shows it.
    """
    why = ""
    for more in ({}, {POSITIONAL: "none"}):
        if more and POSITIONAL in patched:
            break
        try:
            cell = Cell(name, {**patched, **more}, patch(base, {**patched, **more}))
            _ = cell.model
        except StrawberryError as error:
            why = why or str(error).splitlines()[0]
        else:
            return cell
    return Cell(name, patched, None, skipped=why)


def _patches(
    plan: Plan, base: Recipe, vary: Mapping[str, Values]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if plan.mode == "leave_one_out":
        yield "recipe", {}
        for part, path, plain in _parts(base):
            if not plan.vary or path in plan.vary:
                yield f"without {part}", {path: plain}
        return
    if not vary:
        yield "recipe", {}
        return
    paths = list(vary)
    if plan.mode == "random":
        yield "recipe", {}
        for number, drawn in enumerate(draws(vary, plan.samples, base.seed)):
            yield f"{number}: {_name(paths, drawn)}", dict(zip(paths, drawn, strict=True))
    elif plan.mode == "one_at_a_time":
        yield "recipe", {}
        for path, values in vary.items():
            for value in _listed(values):
                yield _name([path], [value]), {path: value}
    else:
        listed = [_listed(given) for given in vary.values()]
        if plan.mode == "paired" and len({len(row) for row in listed}) > 1:
            raise StrawberryError("paired lists must have equal lengths")
        rows = itertools.product(*listed) if plan.mode == "grid" else zip(*listed, strict=True)
        for row in rows:
            yield _name(paths, row), dict(zip(paths, row, strict=True))


def _listed(values: Values) -> tuple[Any, ...]:
    assert not isinstance(values, Range)
    return values


def draws(vary: Mapping[str, Values], count: int, seed: int) -> Iterator[list[Any]]:
    """Points of the space, spread by Sobol's sequence."""
    qmc = needs("scipy.stats").qmc
    points = qmc.Sobol(len(vary), seed=seed).random(1 << (count - 1).bit_length())[:count]
    for point in points:
        yield [
            _at(values, float(share)) for values, share in zip(vary.values(), point, strict=True)
        ]


def _at(values: Values, share: float) -> Any:
    """The value at a fraction of the range."""
    if not isinstance(values, Range):
        return values[min(int(share * len(values)), len(values) - 1)]
    if values.whole:
        return int(values.low) + min(
            int(share * (values.high - values.low + 1)), int(values.high - values.low)
        )
    ratio = values.high / values.low if values.log else 1.0
    value = (
        values.low * ratio**share if values.log else values.low + share * (values.high - values.low)
    )
    return float(f"{value:.4g}")


def _every(path: str, values: Values, plugins: Plugins) -> Values:
    """The values; `all` becomes every registered component."""
    if isinstance(values, Range) or EVERY not in values:
        return values
    kind = kind_at(parse_path(path, None), plugins.registry.kinds)
    names = [entry.full_name for entry in plugins.registry.entries(kind.name)] if kind else []
    listed = [[name.removeprefix("strawberry/") for name in names] if v == EVERY else [v]
              for v in values]  # fmt: skip
    choices: list[Any] = []
    for value in itertools.chain.from_iterable(listed):
        if value not in choices:  # mappings have no hash
            choices.append(value)
    return tuple(choices)


def _name(paths: Sequence[str], values: Sequence[Any]) -> str:
    """`attention=mha ffn=swiglu`: a path's last word, or two where one is ambiguous."""
    words = [path.rsplit(".", 1)[-1] for path in paths]
    if len(set(words)) < len(words):
        words = [".".join(path.replace("*.", "").rsplit(".", 2)[-2:]) for path in paths]
    return " ".join(f"{w}={shown(v)}" for w, v in zip(words, values, strict=True))


def _parts(recipe: Recipe) -> Iterator[tuple[str, str, Any]]:
    """Optional parts of a recipe: name, path, and the value without the part."""
    assert recipe.plugins is not None
    kinds = recipe.plugins.registry.kinds
    steps = list(walk(recipe))
    for kind in kinds.at("block"):
        held = [step.spec.components for step in steps if isinstance(step.spec, BlockSpec)]
        if kind.is_part and any(kind.key in components for components in held):
            yield kind.name, kind.path, kind.plain
    for kind in kinds.at("model"):
        standing = recipe.model.components.get(kind.key)
        if standing is not None and standing.entry.name != kind.plain:
            yield kind.name, kind.path, kind.plain
    for step in steps:
        if isinstance(step.spec, RecurSpec):
            for kind in kinds.at("recur"):
                if kind.key in step.spec.components:
                    yield kind.name, f"{step.path}.{kind.key}", kind.plain
            yield "recur", f"{step.path}.recur", 1
