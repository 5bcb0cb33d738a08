"""Every task against a reading of its sequences that knows the rule and not the generator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from strawberry.components.task.compression import Compression
from strawberry.components.task.dyck import Dyck
from strawberry.components.task.fuzzy_in_context_recall import FuzzyInContextRecall
from strawberry.components.task.in_context_recall import InContextRecall, NoisyInContextRecall
from strawberry.components.task.induction_heads import InductionHeads
from strawberry.components.task.letter_counting import LetterCounting
from strawberry.components.task.memorization import Memorization
from strawberry.components.task.modular_sums import ModularSums
from strawberry.components.task.mqar import MQAR
from strawberry.components.task.selective_copying import SelectiveCopying
from strawberry.components.task.state_tracking import StateTracking
from strawberry.contracts.data import Task, TaskSite
from strawberry.errors import FieldError, RecipeError, StrawberryError
from tests.support import TINY, recipe_of

SITE = TaskSite(64, 64)  # these go by the sizes that `example` is given
Reading = Callable[[list[int]], dict[int, int]]
"""The answers that a sequence of inputs asks for, by position."""


def mqar(inputs: list[int]) -> dict[int, int]:
    """Four pairs of an id below 20 and one above; where such an id stands again, its value."""
    values = dict(zip(inputs[0:8:2], inputs[1:8:2], strict=True))
    assert len(values) == 4
    assert all(0 < k < 20 <= v < 40 for k, v in values.items())
    found = {t: values[x] for t, x in enumerate(inputs) if t >= 8 and x in values}
    assert sorted(inputs[t] for t in found) == sorted(values)
    assert all(x == 0 for t, x in enumerate(inputs) if t >= 8 and t not in found)
    return found


def induction(inputs: list[int]) -> dict[int, int]:
    """The token after the first of the two marks, at the second."""
    assert inputs.count(39) == 2
    return {len(inputs) - 1: inputs[inputs.index(39) + 1]}


def selective(inputs: list[int]) -> dict[int, int]:
    """Everything before the sign that is no blank, in order, one at each blank after it."""
    sign = inputs.index(39)
    tokens = [x for x in inputs[:sign] if x != 38]
    assert inputs[sign + 1 :] == [38] * len(tokens)
    return {sign + 1 + i: token for i, token in enumerate(tokens)}


def compression(inputs: list[int]) -> dict[int, int]:
    """What came before the sign, from the sign on."""
    sign = inputs.index(39)
    return {sign + i: token for i, token in enumerate(inputs[:sign])}


def modular(inputs: list[int]) -> dict[int, int]:
    """The sum of all so far, modulo 5."""
    return {t: sum(inputs[: t + 1]) % 5 for t in range(len(inputs))}


def brackets(inputs: list[int]) -> dict[int, int]:
    """What would close what is open; 6 where nothing is. No more than two are ever open."""
    text = "".join("([{"[x // 2] if x % 2 == 0 else ")]}"[x // 2] for x in inputs)
    found = {}
    for t in range(len(text)):
        left = text[: t + 1]
        while (shorter := left.replace("()", "").replace("[]", "").replace("{}", "")) != left:
            left = shorter
        assert set(left) <= set("([{")
        assert len(left) <= 2
        found[t] = 2 * "([{".index(left[-1]) + 1 if left else 6
    return found


def permutations(inputs: list[int]) -> dict[int, int]:
    """Four things are moved about, one element after the other."""
    elements = [p for p in itertools.permutations(range(4)) if _sign(p) == 1]
    found = {}
    for t in range(len(inputs)):
        places = []
        for start in range(4):
            place = start
            for x in inputs[: t + 1]:
                place = elements[x][place]
            places.append(place)
        found[t] = elements.index(tuple(places))
    return found


def _sign(p: tuple[int, ...]) -> int:
    return round(float(np.linalg.det(np.eye(len(p))[list(p)])))


def letters(inputs: list[int]) -> dict[int, int]:
    """Ids: 6 pieces, 4 letters, counts 0 to 6, a filler. A letter asks about what is before it."""
    spelling = LetterCounting(SITE, pieces=6, letters=4, piece_length=3, word_length=2).spelling()
    found, t = {}, 0
    while t < len(inputs) and inputs[t] != 17:
        word = list(itertools.takewhile(lambda x: x < 6, inputs[t:]))
        assert 1 <= len(word) <= 2
        text = [letter for piece in word for letter in spelling[piece]]
        t += len(word)
        found[t] = 10 + text.count(inputs[t] - 6)
        t += 1
    return found


def recall(*, marks: int, noise: int, multi: bool) -> Reading:
    """Pairs; a key that was there before has its value again. Noise is above 20."""

    def read(inputs: list[int]) -> dict[int, int]:
        keys = (40 - marks - noise) // 2
        start = (len(inputs) + 1 - marks) % 2
        values: dict[int, int] = {}
        found: dict[int, int] = {}
        for t in range(start, len(inputs), 2):
            if marks and inputs[t] == 39:
                assert t == len(inputs) - 2
                return {t + 1: values[inputs[t + 1]]}
            key = inputs[t]
            if key >= 40 - marks - noise:
                assert inputs[t + 1] >= 40 - marks - noise
                continue
            assert key < keys
            if key in values and (multi or t == len(inputs) - 1):
                found[t] = values[key]
            if t + 1 < len(inputs):
                assert values.setdefault(key, inputs[t + 1]) == inputs[t + 1]
        return found

    return read


CASES: dict[str, tuple[Task, Reading, int]] = {
    "mqar": (MQAR(SITE, pairs=4), mqar, 40),
    "induction_heads": (InductionHeads(SITE), induction, 40),
    "selective_copying": (SelectiveCopying(SITE, copied=5), selective, 40),
    "compression": (Compression(SITE), compression, 40),
    "modular_sums": (ModularSums(SITE), modular, 40),
    "dyck": (Dyck(SITE, kinds=3, depth=2), brackets, 7),
    "state_tracking": (StateTracking(SITE, group="a4"), permutations, 12),
    "letter_counting": (
        LetterCounting(SITE, pieces=6, letters=4, piece_length=3, word_length=2),
        letters,
        18,
    ),
    "in_context_recall": (InContextRecall(SITE), recall(marks=0, noise=0, multi=True), 40),
    "in_context_recall, one question": (
        InContextRecall(SITE, multi_query=False),
        recall(marks=1, noise=0, multi=False),
        40,
    ),
    "noisy_in_context_recall": (
        NoisyInContextRecall(SITE, noise=0.4, noise_ids=8),
        recall(marks=0, noise=8, multi=True),
        40,
    ),
}


def sequences(task: Task, vocab_size: int, length: int, **how: Any) -> Iterator[Any]:
    """Forty sequences of a task."""
    for number in range(40):
        rng = np.random.default_rng(number)
        yield task.example(rng, vocab_size, length, training=how.get("training", False))


@pytest.mark.parametrize("length", [24, 33])
@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_the_rule(name: str, length: int) -> None:
    """Where an answer is asked for, and which it is, from the inputs alone."""
    task, reading, vocab_size = CASES[name]
    for inputs, targets in sequences(task, vocab_size, length):
        assert inputs.shape == targets.shape == (length,)
        assert inputs.dtype == targets.dtype == np.int64
        asked = {t: int(y) for t, y in enumerate(targets) if y != -1}
        assert asked == reading(inputs.tolist())
        assert asked


def test_memorised_facts_never_change() -> None:
    """A key has one value in all sequences, no two keys share one, and another seed has others."""
    known: dict[int, int] = {}
    for inputs, targets in sequences(Memorization(SITE), 21, 9):
        assert (targets[0::2] == -1).all()
        for key, mark, value in zip(inputs[0::2], inputs[1::2], targets[1::2], strict=False):
            assert mark == 20
            assert 0 <= key < 10 <= value < 20
            assert known.setdefault(int(key), int(value)) == value
    assert len(set(known.values())) == len(known) == 10
    inputs, targets = next(sequences(Memorization(SITE, facts_seed=1), 21, 9))
    assert any(known[int(k)] != v for k, v in zip(inputs[0::2], targets[1::2], strict=False))


def split(inputs: list[int], half: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """Runs of key tokens and the runs of value tokens after them, with where those begin."""
    runs = [list(run) for _, run in itertools.groupby(enumerate(inputs), lambda x: x[1] >= half)]
    found = []
    for keys, values in zip(runs[0::2], runs[1::2], strict=False):
        found.append((tuple(x for _, x in keys), [t for t, _ in values]))
    return found


@pytest.mark.parametrize("training", [False, True])
def test_fuzzy_recall_repeats_whole_values(training: bool) -> None:
    """A key of several tokens that comes again has the same value, all of it told, and no other.

    In evaluation a key has all of its tokens.
    """
    task = FuzzyInContextRecall(SITE)
    again = 0
    for inputs, targets in sequences(task, 21, 60, training=training):
        whole = [*inputs.tolist(), int(targets[-1])]
        body = [x for x in whole if x != 20]
        shift = len(whole) - len(body)
        seen: dict[tuple[int, ...], list[int]] = {}
        pairs = split(body, 10)
        for number, (key, places) in enumerate(pairs):
            value = [body[t] for t in places]
            assert len(set(key)) == len(key)
            assert len(key) == 3 or (training and 1 <= len(key) <= 3)
            told = [int(targets[shift + t - 1]) for t in places]
            if key in seen:
                again += 1
                assert told == value == seen[key]
            else:
                assert told == [-1] * len(value)
            seen.setdefault(key, value)
            assert number < len(pairs) - 1 or told == value
    assert again >= 40


def test_training_may_predict_everything() -> None:
    """`train_on: all` has every next token as a target, in training alone."""
    for task in (InContextRecall(SITE, train_on="all"), FuzzyInContextRecall(SITE, train_on="all")):
        for inputs, targets in sequences(task, 40, 32, training=True):
            assert (targets[:-1] == inputs[1:]).all()
        assert any((targets == -1).any() for _, targets in sequences(task, 40, 32))


def test_spelled_words_have_nothing_hidden() -> None:
    """Letter by letter, the count is that of the letters before the question."""
    task = LetterCounting(SITE, pieces=6, letters=4, piece_length=3, word_length=2, spelled=True)
    for inputs, targets in sequences(task, 18, 40):
        start = 0
        for t in np.flatnonzero(targets != -1):
            word, letter = inputs[start:t].tolist(), int(inputs[t])
            assert word
            assert all(6 <= x < 10 for x in [*word, letter])
            assert targets[t] == 10 + word.count(letter)
            start = t + 1


def test_rare_tokens_are_rare_in_training_alone() -> None:
    """Of ten tokens, n comes as often as 1 / n says; in evaluation all come as often."""
    task = LetterCounting(SITE, pieces=10, letters=4, piece_length=2, zipf=1.0)
    rare = 1 / np.arange(1, 11)
    for training, expected in ((True, rare / rare.sum()), (False, np.full(10, 0.1))):
        every = np.concatenate([x for x, _ in sequences(task, 22, 300, training=training)])
        shares = np.bincount(every[every < 10], minlength=10) / (every < 10).sum()
        assert shares == pytest.approx(expected, abs=0.015)


def test_gaps_follow_the_power_law() -> None:
    """Questions near the pairs are more common than far ones, and alike if the power is 1."""

    def mean(power: float) -> float:
        task = MQAR(SITE, pairs=1, power=power)
        places = [np.flatnonzero(targets != -1)[0] for _, targets in sequences(task, 40, 202)]
        return float(np.mean(places))

    assert mean(0.01) < 60
    assert 80 < mean(1.0) < 122


@pytest.mark.parametrize(
    ("task", "vocab_size", "length", "message"),
    [
        (MQAR(SITE, pairs=8), 64, 31, "8 pairs and as many questions needs 32 tokens"),
        (MQAR(SITE, pairs=8), 16, 64, "8 pairs needs a vocabulary of 18; model.vocab_size is 16"),
        (SelectiveCopying(SITE, copied=16), 16, 32, "needs 33 tokens; model.block_size is 32"),
        (StateTracking(SITE, group="s5"), 119, 8, "the group s5 needs a vocabulary of 120"),
        (LetterCounting(SITE), 80, 32, "needs a vocabulary of 89"),
        (FuzzyInContextRecall(SITE), 6, 64, "needs a vocabulary of 7"),
        (Dyck(SITE, kinds=8), 16, 8, "8 kinds of brackets needs a vocabulary of 17"),
    ],
)
def test_what_has_no_room_is_refused(
    task: Task, vocab_size: int, length: int, message: str
) -> None:
    """With the number that would do; and with one more it does."""
    with pytest.raises((FieldError, StrawberryError), match=message):
        task.example(np.random.default_rng(0), vocab_size, length, training=False)
    if "tokens" in message:
        length += 1
    else:
        vocab_size += 9
    task.example(np.random.default_rng(0), vocab_size, length, training=False)


@pytest.mark.parametrize(("noise", "ids", "field"), [(1.0, 4, "noise"), (0.2, 0, "noise_ids")])
def test_noise_is_a_share_of_some_ids(noise: float, ids: int, field: str) -> None:
    """Anything else is refused at its field."""
    task = {"use": "noisy_in_context_recall", "noise": noise, "noise_ids": ids}
    model = {**TINY, "stack": [{"ffn": "mlp"}]}
    with pytest.raises(RecipeError, match=rf"data\.task\.{field}: "):
        recipe_of(model, data={"use": "synthetic", "task": task})
