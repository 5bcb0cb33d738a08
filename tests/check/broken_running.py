"""Averages, curricula and measures: each broken in one way, or sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from strawberry.contracts import Averaging, Curriculum, Measure, RunSite, Settings, State
from strawberry.plugin import hookimpl
from tests.registering import register_classes


class Decayed(Averaging):
    """An exponential average: sound."""

    def __init__(self, site: RunSite) -> None:
        pass

    def update(self, kept: State, weights: Tensor, step: int) -> None:
        kept.setdefault("mean", weights.clone()).lerp_(weights, 0.1)

    def value(self, kept: State, step: int) -> Tensor | None:
        return kept.get("mean")


class Doubled(Decayed):
    """Returns twice the average."""

    def value(self, kept: State, step: int) -> Tensor | None:
        return 2 * kept["mean"] if kept else None


class Sized(Decayed):
    """Moves faster where a parameter has fewer numbers."""

    def update(self, kept: State, weights: Tensor, step: int) -> None:
        kept.setdefault("mean", weights.clone()).lerp_(weights, 1 / weights.numel())


class Forgets(Decayed):
    """Keeps how far it is in an attribute, which no checkpoint saves."""

    def __init__(self, site: RunSite) -> None:
        self.done = 0

    def update(self, kept: State, weights: Tensor, step: int) -> None:
        self.done += 1
        kept.setdefault("mean", weights.clone()).lerp_(weights, 1 / self.done)


class Halved(Curriculum):
    """Half of the batch in the first half of the run: sound."""

    def __init__(self, site: RunSite) -> None:
        self.site = site

    def at(self, step: int) -> Settings:
        late = step >= self.site.max_iters // 2
        return Settings(batch_size=None if late else max(1, self.site.batch_size // 2))


class Counts(Halved):
    """Counts its calls in place of the steps."""

    calls = 0

    def at(self, step: int) -> Settings:
        self.calls += 1
        return super().at(self.calls - 1)


class TooMany(Halved):
    """Wants more sequences than the recipe has."""

    def at(self, step: int) -> Settings:
        return Settings(batch_size=self.site.batch_size + 1)


class FreezesNothing(Halved):
    """Freezes parameters that there are not."""

    def at(self, step: int) -> Settings:
        return Settings(frozen=("nothing.*",))


class Hits(Measure):
    """The share of right tokens: sound."""

    def __init__(self, site: RunSite) -> None:
        pass

    def measure(
        self, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        asked = targets >= 0
        likely = logits(ids).softmax(-1).amax(-1)
        return {"hits": ((likely * asked).sum(), asked.sum())}


class Means(Hits):
    """Returns the mean of a batch as its sum."""

    def measure(
        self, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        total, count = super().measure(logits, ids, targets)["hits"]
        return {"hits": (total / count, count)}


class Wavers(Hits):
    """Is a little larger at every second measurement."""

    calls = 0

    def measure(
        self, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        total, count = super().measure(logits, ids, targets)["hits"]
        Wavers.calls += 1
        return {"hits": (total * (1 + 1e-5 * (Wavers.calls % 2)), count)}


class Trains(Hits):
    """Changes the weights of the model that a run measures."""

    def measure(
        self, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        engine = getattr(logits, "__self__", None)  # only where a run measures
        if engine is not None:
            next(engine.model.parameters()).add_(1e-3)
        return super().measure(logits, ids, targets)


@hookimpl
def strawberry_register(registry: Any) -> None:
    """Register every component of this file."""
    register_classes(registry, globals())
