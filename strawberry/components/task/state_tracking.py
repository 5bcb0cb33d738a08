"""State tracking: word problems of permutation groups (Merrill et al. 2024, arXiv 2404.08819)."""

from __future__ import annotations

import functools
import itertools
from typing import Literal

import numpy as np
import numpy.typing as npt

from strawberry.components.task.layout import need_ids
from strawberry.contracts.data import Ids, Task, TaskSite


class StateTracking(Task):
    """Permutations of a few things in sequence; the answer at each is the product of all so far.

    Ids are the group's elements in the order of their one-line notation. The product of p and then
    q moves i to q(p(i)). Of these groups s5 and a5 are not solvable. A fixed number of layers of
    attention, or of linear recurrences with diagonal transitions, can't track them for all lengths.

    Args:
        group: all permutations of n things (`sN`), or the even ones (`aN`).
    """

    def __init__(
        self, site: TaskSite, *, group: Literal["s3", "s4", "s5", "a4", "a5"] = "s5"
    ) -> None:
        self.group = group

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); every position has an answer."""
        products = _products(self.group)
        need_ids(len(products), vocab_size, f"the group {self.group}", "group")
        inputs = rng.integers(len(products), size=length)
        targets = np.fromiter(
            itertools.accumulate(inputs.tolist(), lambda p, q: int(products[p, q])),
            dtype=np.int64,
            count=length,
        )
        return inputs, targets


@functools.cache
def _products(group: str) -> npt.NDArray[np.int64]:
    """The group's table (n, n): the product of p and then q."""
    n = int(group[1])
    elements = [p for p in itertools.permutations(range(n)) if group[0] == "s" or _is_even(p)]
    number = {p: i for i, p in enumerate(elements)}
    return np.array(
        [[number[tuple(q[p[i]] for i in range(n))] for q in elements] for p in elements]
    )


def _is_even(p: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0
