"""In-context recall (Poli et al. 2024, arXiv 2403.17844, section 3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from strawberry.components.task.layout import need_ids, need_length, next_tokens, one_of
from strawberry.contracts.data import Ids, Task, TaskSite


class InContextRecall(Task):
    """Keys and their values, drawn for each sequence; a repeated key has the same value.

        k1 v5 k3 v2 k1 v5 k3 v2
                       ^     ^   to be told

    Half of the ids are keys and half are values; if there is only one question, the last id marks
    it. Keys are drawn with replacement, so most repeat in a long sequence.

    Args:
        multi_query: ask for every repeated key; else only for the last one.
        train_on: targets in training: the answers, or all next tokens, as in the paper.
    """

    noise: float = 0.0
    noise_ids: int = 0

    def __init__(
        self,
        site: TaskSite,
        *,
        multi_query: bool = True,
        train_on: Literal["answers", "all"] = "answers",
    ) -> None:
        self.multi_query = multi_query
        self.train_on = train_on

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); the last position always has an answer."""
        marks = 0 if self.multi_query else 1
        free = vocab_size - marks - self.noise_ids
        need_ids(4 + marks + self.noise_ids, vocab_size, "two keys and two values")
        need_length(3 + marks, length, "a pair and a question")
        half = free // 2
        pairs, loose = divmod(length + 1 - marks, 2)
        sequence, answers = [int(rng.integers(half, free))] * loose, [False] * loose
        values: dict[int, int] = {}
        kept = int(rng.integers(pairs - 1))  # at least one pair is no noise
        for number in range(pairs - 1):
            if number != kept and self.noise and rng.random() < self.noise:
                sequence += (free + rng.integers(self.noise_ids, size=2)).tolist()
                answers += [False, False]
                continue
            key = int(rng.integers(half))
            answers += [False, key in values and self.multi_query]
            sequence += [key, values.setdefault(key, int(rng.integers(half, free)))]
        asked = one_of(rng, list(values))
        sequence += [vocab_size - 1] * marks + [asked, values[asked]]
        answers += [False] * marks + [False, True]
        return next_tokens(sequence, answers, training and self.train_on == "all")


class NoisyInContextRecall(InContextRecall):
    """In-context recall with pairs of noise among the pairs of keys and values.

    Noise has separate ids, above keys and values.

    Args:
        noise: fraction of the pairs that is noise.
        noise_ids: number of noise ids.
    """

    def __init__(
        self,
        site: TaskSite,
        *,
        noise: Annotated[float, Gt(0), Lt(1)] = 0.2,
        noise_ids: Annotated[int, Ge(1)] = 16,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.noise = noise
        self.noise_ids = noise_ids
