"""What a recipe's curricula say of each step, put in force, and counted beforehand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from strawberry.contracts import Component, Curriculum, Settings
from strawberry.errors import RecipeError, StrawberryError
from strawberry.runs.averages import run_site

if TYPE_CHECKING:
    from torch import nn

    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe

MOST: Final = 64
"""How many different settings a run may have: each is a shape, and may be compiled anew."""


class Curricula:
    """All curricula of a recipe, as one.

    Raises RecipeError, at its place, if a curriculum says what can't be.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        site = run_site(recipe)
        self.parts = [spec.construct(site, contract=Curriculum) for spec in recipe.curriculum]
        self.site = site
        self._steps: list[Settings] = []
        self._rows: list[int] = [0]
        self._tokens: list[int] = [0]
        if self.parts:
            self._plan()

    def at(self, step: int) -> Settings:
        """The settings of a step, from 0."""
        return self._steps[min(step, len(self._steps) - 1)] if self.parts else Settings()

    def batch_size(self, step: int) -> int:
        """Sequences in a micro-batch of a step."""
        return self.at(step).batch_size or self.site.batch_size

    def block_size(self, step: int) -> int:
        """Tokens of a sequence of a step."""
        return self.at(step).block_size or self.site.block_size

    def rows_before(self, step: int) -> int:
        """Rows of all steps before this one."""
        return self._rows[step] if self.parts else step * self._parts * self.site.batch_size

    def tokens_before(self, step: int) -> int:
        """Tokens of all steps before this one."""
        return self._tokens[step] if self.parts else self.rows_before(step) * self.site.block_size

    def stages(self) -> Iterator[tuple[int, Settings]]:
        """(steps, settings) of the run, where neighbours differ."""
        steps = self._steps if self.parts else [Settings()] * self.site.max_iters
        for settings, same in itertools.groupby(steps):
            yield sum(1 for _ in same), settings

    def put(self, model: LanguageModel, step: int) -> None:
        """Put in force what a step says of the model; raises StrawberryError if it can't be."""
        if self.parts:
            put_settings(model, self.at(step))

    def frozen(self, model: LanguageModel, step: int) -> list[nn.Parameter]:
        """The parameters that a step leaves as they are, by what it says and where nodes don't run.

        Raises StrawberryError if there are none of a name.
        """
        every = model.stack.idle()
        for selector in self.at(step).frozen:
            chosen = [
                info.parameter
                for info in model.parameter_infos()
                if selector == info.kind or fnmatchcase(info.name, selector)
            ]
            if not chosen:
                raise StrawberryError(f"curriculum: no parameter is called {selector!r}")
            every += chosen
        return every

    @property
    def _parts(self) -> int:
        return self.recipe.train.gradient_accumulation_steps

    def _plan(self) -> None:
        different = set[str]()
        for step in range(self.site.max_iters):
            settings = Settings()
            for part, spec in zip(self.parts, self.recipe.curriculum, strict=True):
                try:
                    settings = _joined(settings, self._checked(part.at(step)))
                except ValueError as error:
                    problem = spec.problem("", f"step {step}: {error}")
                    raise RecipeError([problem]) from error
            different.add(repr(settings))
            if len(different) > MOST:
                message = f"more than {MOST} different settings; each is compiled by itself"
                raise RecipeError([self.recipe.curriculum[0].problem("", message)])
            self._steps.append(settings)
            rows = (settings.batch_size or self.site.batch_size) * self._parts
            self._rows.append(self._rows[-1] + rows)
            tokens = rows * (settings.block_size or self.site.block_size)
            self._tokens.append(self._tokens[-1] + tokens)

    def _checked(self, settings: Settings) -> Settings:
        for name, most in (
            ("batch_size", self.site.batch_size),
            ("block_size", self.site.block_size),
            ("depth", self.site.depth),
        ):
            value = getattr(settings, name)
            if value is not None and not 1 <= value <= most:
                raise ValueError(f"{name} {value} is not between 1 and the recipe's {most}")
        return settings


def put_settings(model: LanguageModel, settings: Settings) -> None:
    """Put in force what settings say of the model; raises StrawberryError if that can't be."""
    model.stack.set_depth(settings.depth or len(model.stack.nodes))
    for pattern, value in settings.attributes.items():
        matching = list(_adjustable(model, pattern))
        if not matching:
            raise StrawberryError(f"curriculum: nothing that may change is called {pattern!r}")
        for component, name in matching:
            setattr(component, name, value)


def _joined(one: Settings, other: Settings) -> Settings:
    """Both; raises ValueError where they say different things of the same."""
    changes: dict[str, Any] = {}
    for item in fields(Settings):
        ours, theirs = getattr(one, item.name), getattr(other, item.name)
        if item.name == "frozen":
            changes["frozen"] = (*ours, *theirs)
        elif item.name == "attributes":
            if twice := set(ours) & set(theirs):
                raise ValueError(f"{min(twice)} is set by another curriculum too")
            changes["attributes"] = {**ours, **theirs}
        elif theirs is not None:
            if ours is not None:
                raise ValueError(f"{item.name} is set by another curriculum too")
            changes[item.name] = theirs
    return replace(one, **changes)


def _adjustable(model: nn.Module, pattern: str) -> Iterator[tuple[Component, str]]:
    for path, component in model.named_modules():
        for name in component.adjustable if isinstance(component, Component) else ():
            if fnmatchcase(f"{path}.{name}", pattern):
                yield component, name
