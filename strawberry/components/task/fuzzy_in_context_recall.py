"""Fuzzy in-context recall (Poli et al. 2024, arXiv 2403.17844, section 3)."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from strawberry.components.task.in_context_recall import InContextRecall
from strawberry.components.task.layout import need_ids, need_length, next_tokens
from strawberry.contracts.data import Ids, TaskSite


class FuzzyInContextRecall(InContextRecall):
    """In-context recall with keys and values of several consecutive tokens.

        k1 k4 | v2 | k3 | v1 v6 v2 | k1 k4 | v2

    (the bars are not in the sequence). In training a key has one to `key_length` tokens; in
    evaluation it has all. The tokens of a key differ from each other, and so do those of a value.
    The last pair repeats an earlier one. The last id pads the beginning; if there is only one
    question, the id before it marks the question.

    Args:
        key_length: maximum number of tokens of a key.
        value_length: maximum number of tokens of a value.
    """

    def __init__(
        self,
        site: TaskSite,
        *,
        key_length: Annotated[int, Ge(1)] = 3,
        value_length: Annotated[int, Ge(1)] = 3,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.key_length = key_length
        self.value_length = value_length

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); the last value's tokens are always answers."""
        marks = 0 if self.multi_query else 1
        # Ids: [0, n_keys) are tokens of keys, [n_keys, n_symbols) those of values; then the mark of
        # the question, if there is one, and last the padding.
        n_symbols = vocab_size - 1 - marks
        n_keys, max_pair = n_symbols // 2, self.key_length + self.value_length
        max_span = max(self.key_length, self.value_length)
        need_ids(2 * max_span + 1 + marks, vocab_size, f"{max_span} tokens in a row that differ")
        need_length(2 * max_pair + marks, length, "two pairs")
        values: dict[tuple[int, ...], tuple[int, ...]] = {}
        sequence: list[int] = []
        answers: list[bool] = []
        while len(sequence) <= length + 1 - marks - 2 * max_pair:
            size = int(rng.integers(1, self.key_length + 1)) if training else self.key_length
            key = tuple(rng.choice(n_keys, size, replace=False).tolist())
            known = key in values
            if not known:
                size = int(rng.integers(1, self.value_length + 1))
                drawn = n_keys + rng.choice(n_symbols - n_keys, size, replace=False)
                values[key] = tuple(drawn.tolist())
            sequence += [*key, *values[key]]
            answers += [False] * len(key) + [known and self.multi_query] * len(values[key])
        asked = list(values)[int(rng.integers(len(values)))]
        sequence += [vocab_size - 2] * marks + [*asked, *values[asked]]
        answers += [False] * (marks + len(asked)) + [True] * len(values[asked])
        missing = length + 1 - len(sequence)
        sequence = [vocab_size - 1] * missing + sequence
        answers = [False] * missing + answers
        return next_tokens(sequence, answers, training and self.train_on == "all")
