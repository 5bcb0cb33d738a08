"""The averages of a run's weights: kept in step with them, saved with them, and put in their place.

The average of a parameter has its shape, and under `fsdp` its shards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from strawberry.contracts import Averaging, RunSite, State, shard_like
from strawberry.errors import StrawberryError
from strawberry.plugin.words import did_you_mean
from strawberry.recipe.unrolled import expand

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe

PREFIX: Final = "averages/"
"""Prefix of the paths of averages, among those of a checkpoint's optimizers."""


def run_site(recipe: Recipe) -> RunSite:
    """The site of a running component in a recipe's run."""
    train, model = recipe.train, recipe.model
    return RunSite(train.max_iters, train.batch_size, model.block_size, len(expand(model.stack)))


@dataclass(slots=True)
class Average:
    """One average: its component, and what it keeps by the names of parameters."""

    averaging: Averaging
    kept: dict[str, State] = field(default_factory=dict)


class Averages:
    """All averages of a recipe, by name: that of the component, numbered where it stands again."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        self.model = model
        self.by_name: dict[str, Average] = {}
        for spec in recipe.averaging:
            name, number = spec.entry.name, 2
            while name in self.by_name:
                name, number = f"{spec.entry.name}_{number}", number + 1
            self.by_name[name] = Average(spec.construct(run_site(recipe), contract=Averaging))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights, after so many steps."""
        for average in self.by_name.values():
            for name, parameter in self.model.named_parameters():
                kept = average.kept.setdefault(name, {})
                average.averaging.update(kept, parameter.detach(), step)

    @torch.no_grad()
    def put(self, name: str, step: int) -> dict[str, Tensor]:
        """Put an average's weights after so many steps in the model; returns copies of its own.

        Raises StrawberryError if there is no such average.
        """
        if name not in self.by_name:
            known = ", ".join(self.by_name) or "none"
            hint = did_you_mean(name, self.by_name) or f"; averages of this run: {known}"
            raise StrawberryError(f"there is no average {name!r}{hint}")
        average, own = self.by_name[name], dict[str, Tensor]()
        for path, parameter in self.model.named_parameters():
            value = average.averaging.value(average.kept.get(path, {}), step)
            if value is not None:
                own[path] = parameter.detach().clone()
                parameter.copy_(value)
        return own

    @contextlib.contextmanager
    def using(self, name: str, step: int) -> Iterator[None]:
        """Within it the model has the average's weights; at its end, bit for bit, its own."""
        own = self.put(name, step)
        try:
            yield
        finally:
            with torch.no_grad():
                for path, parameter in self.model.named_parameters():
                    if path in own:
                        parameter.copy_(own[path])

    def state(self) -> dict[str, Tensor]:
        """All that is kept, by path."""
        return {
            f"{PREFIX}{name}/{parameter}/{key}": tensor
            for name, average in self.by_name.items()
            for parameter, kept in average.kept.items()
            for key, tensor in kept.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave, among other tensors, where the parameters are."""
        parameters = dict(self.model.named_parameters())
        for average in self.by_name.values():
            average.kept.clear()
        for path, tensor in tensors.items():
            if not path.startswith(PREFIX):
                continue
            name, parameter, key = path.removeprefix(PREFIX).split("/")
            if name not in self.by_name or parameter not in parameters:
                raise ValueError(f"an average {name} of {parameter}, which this recipe has not")
            own = shard_like(tensor, parameters[parameter]).to(parameters[parameter].device)
            self.by_name[name].kept.setdefault(parameter, {})[key] = own.clone()

    @property
    def copies(self) -> int:
        """How many copies of the weights are kept, at the most."""
        return sum(average.averaging.copies for average in self.by_name.values())

    def nbytes(self) -> int:
        """Bytes that are kept at the most, of all ranks together."""
        return self.copies * sum(4 * parameter.numel() for parameter in self.model.parameters())
