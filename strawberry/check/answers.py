"""Checks of tasks: examples are reproducible, and answers follow from the inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.contracts.data import IGNORED, Ids, Task, TaskSite
from strawberry.errors import StrawberryError

EXAMPLES: Final = 64
MANY: Final = 2000
"""Number of examples of the smallest size, at which repeated beginnings are common."""
TRIVIAL: Final = 0.95
"""Share of the most common answer above which there is nothing to learn."""
ROOMS: Final = (1, 2, 3, 5, 8, 13, 21, 34)


def shape(subject: Subject) -> str:
    """Are inputs and targets (T,) int64, within the vocabulary, with at least one answer?"""
    vocab_size, length = _room(subject)
    answers = 0
    for training in (True, False):
        for number, given in enumerate(_examples(subject, vocab_size, length, training=training)):
            place = f"example {number} for {'training' if training else 'evaluation'}"
            for what, ids in zip(("inputs", "targets"), given, strict=True):
                if ids.shape != (length,) or ids.dtype != np.int64:
                    raise Finding(
                        f"{what} of {place} are {ids.shape} {ids.dtype}, expected ({length},) int64"
                    )
                least = IGNORED if what == "targets" else 0
                if ids.min() < least or ids.max() >= vocab_size:
                    raise Finding(
                        f"{what} of {place} are between {ids.min()} and {ids.max()}, but the "
                        f"vocabulary has {vocab_size} ids"
                    )
            if (given[1] == IGNORED).all():
                raise Finding(f"{place} has no answer")
            answers += int((given[1] != IGNORED).sum())
    return f"{answers / (2 * EXAMPLES):.1f} answers in {length} tokens"


def repeats(subject: Subject) -> str:
    """Does a draw determine its example, and do different draws give different examples?"""
    vocab_size, length = _room(subject)
    first, again = (list(_examples(subject, vocab_size, length)) for _ in range(2))
    for number, (one, other) in enumerate(zip(first, again, strict=True)):
        if not all(map(np.array_equal, one, other)):
            raise Finding(
                f"example {number} changes when it is drawn again, so a run could not resume"
            )
    different = len({inputs.tobytes() for inputs, _ in first})
    if different < 2:
        raise Finding(f"all {EXAMPLES} examples are the same")
    return f"{different} of {EXAMPLES} examples differ"


def exact(subject: Subject) -> str:
    """Does evaluation have only one answer to the same inputs?"""
    vocab_size, length = _smallest(subject)
    known: dict[bytes, int] = {}
    met = 0
    for inputs, targets in _examples(subject, vocab_size, length, count=MANY):
        for t in np.flatnonzero(targets != IGNORED):
            begin = inputs[: t + 1].tobytes()
            answer = int(targets[t])
            met += begin in known
            if known.setdefault(begin, answer) != answer:
                raise Finding(
                    f"after {inputs[: t + 1].tolist()} the answer is {known[begin]} in one example "
                    f"and {answer} in another"
                )
    if not met:
        raise NotApplicable(f"no two of {MANY:,} examples begin with the same tokens")
    return f"{met:,} answers to repeated inputs, all consistent"


def varied(subject: Subject) -> str:
    """Is there something to learn, so that no constant answer is nearly always right?"""
    vocab_size, length = _room(subject)
    counts: Counter[int] = Counter()
    for _, targets in _examples(subject, vocab_size, length):
        counts.update(targets[targets != IGNORED].tolist())
    answer, times = counts.most_common(1)[0]
    share = times / counts.total()
    if share > TRIVIAL:
        raise Finding(f"{share:.0%} of all answers are {answer}")
    return f"the most common of {len(counts)} answers is {share:.1%} of them"


def room(subject: Subject) -> str:
    """Are impossible vocabularies and lengths rejected as user errors?"""
    task = _task(subject)
    refused = 0
    for vocab_size in ROOMS:
        for length in ROOMS:
            try:
                task.example(np.random.default_rng(0), vocab_size, length, training=False)
            except (StrawberryError, ValueError) as error:
                if isinstance(error, ValueError) and type(error).__module__ != "strawberry.errors":
                    raise Finding(
                        f"for a vocabulary of {vocab_size} and {length} tokens it raises "
                        f"{type(error).__name__}: {error}; raise a FieldError or StrawberryError "
                        "that says which sizes work"
                    ) from error
                refused += 1
    return f"{refused} of {len(ROOMS) ** 2} sizes refused"


def _task(subject: Subject) -> Task:
    task: Task = subject.recipe.data.fields["task"].construct(
        TaskSite(*_room(subject)), contract=Task
    )
    return task


def _room(subject: Subject) -> tuple[int, int]:
    """Vocabulary and length of the recipe."""
    return subject.recipe.model.vocab_size, subject.recipe.model.block_size


def _examples(
    subject: Subject,
    vocab_size: int,
    length: int,
    *,
    training: bool = False,
    count: int = EXAMPLES,
) -> Iterator[tuple[Ids, Ids]]:
    task = _task(subject)
    for number in range(count):
        rng = np.random.default_rng(number)
        yield task.example(rng, vocab_size, length, training=training)


def _smallest(subject: Subject) -> tuple[int, int]:
    """The shortest length that the task accepts, and then the smallest vocabulary."""
    vocab_size, length = _room(subject)
    task = _task(subject)

    def fits(size: int, tokens: int) -> bool:
        try:
            task.example(np.random.default_rng(0), size, tokens, training=False)
        except (StrawberryError, ValueError):
            return False
        return True

    length = next((n for n in range(2, length) if fits(vocab_size, n)), length)
    return next((n for n in range(2, vocab_size) if fits(n, length)), vocab_size), length
