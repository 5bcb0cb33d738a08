"""Rows on the device; those of the next step are transferred during the current one.

A step has `batch_size` x `gradient_accumulation_steps` rows, over all ranks. The rows are the same
for any division: micro-batches take them in turn, and within one the ranks do.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from strawberry.contracts.data import UNPREDICTED
from strawberry.errors import PluginError, StrawberryError
from strawberry.ranks.world import World
from strawberry.recipe.seeds import seed_of
from strawberry.runs.curricula import Curricula

if TYPE_CHECKING:
    from strawberry.contracts.data import Ids
    from strawberry.data import Dataset, Split
    from strawberry.recipe.spec import Recipe

MicroBatch: TypeAlias = tuple[Tensor, Tensor]
"""Ids and targets, (B, T) each."""


@dataclass(frozen=True, slots=True)
class EvaluationRows:
    """Rows for an evaluation.

    Attributes:
        x: ids, (B, T).
        y: targets, (B, T).
        rows: number of rows of the split: B, or 0 if this rank has none. Then it has one row
            without targets, because ranks have to run the model together.
        numbers: of these rows in their split, (B,) int64.
        n_bytes: UTF-8 bytes of the targets' text; None without text.
    """

    x: Tensor
    y: Tensor
    rows: int
    numbers: Tensor
    n_bytes: float | None


class Batches:
    """This rank's rows of a recipe's steps and evaluations.

    If the device has its own memory, a thread gathers the next step's rows into pinned memory and
    starts the copy meanwhile.

    Attributes:
        trained: inputs and targets of the last requested step, on this rank.
        evaluated: those of `val` since its first row was requested, on this rank.
    """

    def __init__(
        self, dataset: Dataset, recipe: Recipe, device: torch.device, world: World | None = None
    ) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.device = device
        self.world = world if world is not None else World()
        self._apart = device.type not in ("cpu", "mps")
        self._pool = ThreadPoolExecutor(1) if self._apart else None
        self._next: tuple[int, Future[list[MicroBatch]]] | None = None
        self.curricula = Curricula(recipe)
        self.trained: list[tuple[Ids, Ids]] = []
        self.evaluated: list[tuple[Ids, Ids]] = []

    def train(self, step: int) -> list[MicroBatch]:
        """The micro-batches of a training step, from 0."""
        if self._pool is None:
            return self._step(step)
        if self._next is not None and self._next[0] == step:
            parts = self._next[1].result()
        else:
            parts = self._step(step)
        self._next = (step + 1, self._pool.submit(self._step, step + 1))
        return parts

    def numbers(self, step: int) -> list[range]:
        """The row numbers of each micro-batch of a step, over all ranks."""
        parts, size = self.recipe.train.gradient_accumulation_steps, self.curricula.batch_size(step)
        first = self.curricula.rows_before(step)
        return [range(first + n * size, first + (n + 1) * size) for n in range(parts)]

    def val(self, first: int, count: int, split: Split = "val") -> EvaluationRows:
        """Rows `first` to `first + count - 1` of validation, or of a test; divided among ranks."""
        mine = self.world.share(range(first, first + count))
        numbers = mine or range(first, first + 1)
        x, y = self._rows(split, numbers)
        if not mine:
            y = np.full_like(y, UNPREDICTED[0])
        if split == "val":
            self.evaluated = [*(self.evaluated if first else ()), (x, y)]
        n_bytes = self.dataset.n_bytes(split, y)
        told = torch.arange(numbers.start, numbers.stop, device=self.device)
        return EvaluationRows(*self._place(x, y), len(mine), told, n_bytes)

    def close(self) -> None:
        """Stop the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _step(self, step: int) -> list[MicroBatch]:
        shares = [self.world.share(numbers) for numbers in self.numbers(step)]
        self.trained = [self._rows("train", share) for share in shares]
        end = self.curricula.block_size(step)
        return [self._place(x[:, :end], y[:, :end]) for x, y in self.trained]

    def _rows(self, split: Split, numbers: range) -> tuple[Ids, Ids]:
        """Checked rows of a data set; raises PluginError for any other fault of a plugin's."""
        model = self.recipe.model
        try:
            x, y = self.dataset.rows(
                split,
                numbers.start,
                len(numbers),
                block_size=model.block_size,
                seed=seed_of(self.recipe, "data"),
            )
            shape = (len(numbers), model.block_size)
            x = _checked("input", x, shape, model.vocab_size)
            return x, _checked("target", y, shape, model.vocab_size, UNPREDICTED)
        except StrawberryError:
            raise
        except Exception as error:
            place = f"rows {numbers.start} to {numbers.stop - 1} of {split}"
            reason = (
                str(error)
                if isinstance(error, _WrongIdsError)
                else f"{type(error).__name__}: {error}"
            )
            raise PluginError(f"data {self.recipe.data.use}: {place}: {reason}") from error

    def _place(self, *arrays: Ids) -> MicroBatch:
        x, y = (torch.from_numpy(array) for array in arrays)
        if self._apart:
            x, y = x.pin_memory(), y.pin_memory()
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


class _WrongIdsError(ValueError):
    """The ids are unusable for a model."""


def _checked(
    what: str, ids: Ids, shape: tuple[int, int], vocab_size: int, beside: tuple[int, ...] = ()
) -> Ids:
    """The ids as int64; raises _WrongIdsError for other numbers or outside the vocabulary.

    Values of `beside` are allowed too, and become the first of them.
    """
    if ids.shape != shape:
        raise _WrongIdsError(f"{what}s are {ids.shape}, expected {shape}")
    if not np.issubdtype(ids.dtype, np.integer):
        raise _WrongIdsError(f"{what}s are {ids.dtype}, expected whole numbers")
    ids = np.ascontiguousarray(ids, dtype=np.int64)
    least, most = int(ids.min()), int(ids.max())
    if least < 0 and beside:
        ids = np.where(np.isin(ids, beside), beside[0], ids)
        others = ids[ids != beside[0]]
        least = int(others.min()) if others.size else 0
    if least < 0 or most >= vocab_size:
        wrong = least if least < 0 else most
        raise _WrongIdsError(f"a {what} is {wrong}, outside the vocabulary of {vocab_size}")
    return ids
