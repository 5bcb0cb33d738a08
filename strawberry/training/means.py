"""Means of the micro-batches' reports, over steps and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from strawberry.contracts import Metric
from strawberry.contracts.terms import Read
from strawberry.ranks.world import World


class WeightedMeans:
    """Weighted means by name; sums stay on the device until they are needed.

    A metric of several values has a sum for each of them, and is computed from their means.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}
        self._weights: dict[str, list[float]] = {}
        self._reads: dict[str, Read] = {}

    def add(self, terms: Mapping[str, Metric], weight: float) -> None:
        """Add metrics, weighted by their number of tokens."""
        for name, metric in terms.items():
            if metric.read is not None:
                self._reads[name] = metric.read
            for place, value in enumerate(metric.values):
                self.add_part(name, value.detach().float() * weight, weight, place)

    def add_part(self, name: str, part: Tensor, weight: float, place: int = 0) -> None:
        """Add to a sum, and to its weight."""
        sums, weights = self._sums.setdefault(name, []), self._weights.setdefault(name, [])
        if place == len(sums):
            sums.append(part)
            weights.append(weight)
        else:
            sums[place] = sums[place] + part
            weights[place] += weight

    def copy(self) -> WeightedMeans:
        """A copy of the current sums."""
        other = WeightedMeans()
        other._sums = {name: list(sums) for name, sums in self._sums.items()}
        other._weights = {name: list(weights) for name, weights in self._weights.items()}
        other._reads = dict(self._reads)
        return other

    def numbers(self, world: World) -> dict[str, float]:
        """The means over all ranks, all of which have to call it; synchronises with the device."""
        told = {}
        for name, (sums, weights) in self._together(world).items():
            means = tuple(s / w for s, w in zip(sums, weights, strict=True))
            told[name] = Metric(means, self._reads.get(name)).number().item()
        return told

    def state(self, world: World) -> dict[str, Any]:
        """Sums and weights, as means over ranks, in JSON, which preserves a float32."""
        return {
            name: [[s.tolist() for s in sums], weights]
            for name, (sums, weights) in self._together(world).items()
        }

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the result of `state`."""
        self._sums = {
            name: [torch.tensor(s, dtype=torch.float32, device=device) for s in sums]
            for name, (sums, _) in state.items()
        }
        self._weights = {name: list(weights) for name, (_, weights) in state.items()}

    def _together(self, world: World) -> dict[str, tuple[list[Tensor], list[float]]]:
        """Sums and weights, their means over ranks, in one exchange."""
        names = list(self._sums)
        every = [s for name in names for s in self._sums[name]]
        weights = [w for name in names for w in self._weights[name]]
        if not every or world.size == 1:
            return {name: (self._sums[name], self._weights[name]) for name in names}
        flat = torch.cat([s.flatten() for s in every])
        flat = world.mean(torch.cat((flat, flat.new_tensor(weights))))
        *split, shared = torch.split(flat, [*(s.numel() for s in every), len(weights)])
        pieces, shares = iter(split), iter(shared.tolist())
        return {
            name: (
                [next(pieces).view_as(s) for s in self._sums[name]],
                [next(shares) for _ in self._weights[name]],
            )
            for name in names
        }
