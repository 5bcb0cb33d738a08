"""Batches on the device, the next one on its way while this one is used."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.errors import PluginError, StrawberryError

if TYPE_CHECKING:
    from strawberry.data import Dataset, Split
    from strawberry.recipe.spec import Recipe


class Batches:
    """The batches of a recipe, by number; a pure function of seed and number.

    Where the device has its own memory, a thread gathers the next batch into pinned memory and
    starts its copy meanwhile.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, device: torch.device) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.device = device
        self._apart = device.type not in ("cpu", "mps")
        self._pool = ThreadPoolExecutor(1) if self._apart else None
        self._next: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None

    def train(self, number: int) -> tuple[Tensor, Tensor]:
        """Micro-batch `number` of the training split: ids and targets, (B, T) each."""
        if self._pool is None:
            return self._get("train", number)
        if self._next is not None and self._next[0] == number:
            batch = self._next[1].result()
        else:
            batch = self._get("train", number)
        self._next = (number + 1, self._pool.submit(self._get, "train", number + 1))
        return batch

    def val(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number` of the validation split."""
        return self._get("val", number)

    def close(self) -> None:
        """Stop the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _get(self, split: Split, number: int) -> tuple[Tensor, Tensor]:
        train, model = self.recipe.train, self.recipe.model
        try:
            arrays = self.dataset.batch(
                split,
                number,
                batch_size=train.batch_size,
                block_size=model.block_size,
                seed=self.recipe.seed,
            )
            ids = arrays[0]
            if ids.min() < 0 or ids.max() >= model.vocab_size:
                raise ValueError(
                    f"an id from {ids.min()} to {ids.max()}, outside of a vocabulary of "
                    f"{model.vocab_size}"
                )
        except StrawberryError:
            raise
        except Exception as error:  # whatever a plugin's data set may raise
            raise PluginError(
                f"data {self.recipe.data.use}: batch {number} of {split}: "
                f"{type(error).__name__}: {error}"
            ) from error
        x, y = (torch.from_numpy(array) for array in arrays)
        if self._apart:
            x, y = x.pin_memory(), y.pin_memory()
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
