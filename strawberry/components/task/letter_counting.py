"""Letter counting: how many r's are in strawberry?"""

from __future__ import annotations

import functools
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from strawberry.components.task.layout import need_ids, need_length, unanswered
from strawberry.contracts.data import Ids, Task, TaskSite


class LetterCounting(Task):
    """Words of a few tokens, each followed by a letter; the answer is its count in the word.

        straw berry r  to  mato t  ...
        -     -     3  -   -    2

    A tokenizer hides the letters of a token from a model, which has to learn them from such
    questions. Here each token has random letters, drawn once. If words are `spelled`, each letter
    is a token, and nothing is hidden but where a word ends: `a a a a` may be a word of three
    letters and its question, or two words of one. Half of the letters in questions occur in the
    word.

    Ids are the tokens, then the letters, then the counts, then a padding id for the end.

    Args:
        pieces: number of tokens that form words.
        letters: number of letters in the alphabet.
        piece_length: maximum number of letters of a token.
        word_length: maximum number of tokens of a word.
        spelled: write words letter by letter.
        spelling_seed: seed of the letters of each token.
        zipf: exponent of how rare tokens are in training, where token n comes with a frequency of
            1 / n^zipf. With 0, and in evaluation, all are equally frequent.
    """

    def __init__(
        self,
        site: TaskSite,
        *,
        pieces: Annotated[int, Ge(1)] = 64,
        letters: Annotated[int, Ge(2)] = 8,
        piece_length: Annotated[int, Ge(1)] = 5,
        word_length: Annotated[int, Ge(1)] = 3,
        spelled: bool = False,
        spelling_seed: int = 0,
        zipf: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        self.pieces = pieces
        self.letters = letters
        self.piece_length = piece_length
        self.word_length = word_length
        self.spelled = spelled
        self.spelling_seed = spelling_seed
        frequencies = np.arange(1, pieces + 1) ** -float(zipf)
        self.shares = frequencies / frequencies.sum() if zipf else None

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); each question's letter has the count."""
        longest = self.word_length * (self.piece_length if self.spelled else 1)
        first_letter = self.pieces
        first_count = first_letter + self.letters
        filler = first_count + self.word_length * self.piece_length + 1
        need_ids(filler + 1, vocab_size, f"{self.pieces} pieces, letters and counts", "pieces")
        need_length(longest + 1, length, "a word and a letter", "word_length")
        spelling = self.spelling()
        inputs, targets = np.full(length, filler, dtype=np.int64), unanswered(length)
        t = 0
        while t + longest + 1 <= length:
            size = int(rng.integers(1, self.word_length + 1))
            word = self._word(rng, size, self.shares if training else None)
            text = np.concatenate([spelling[piece] for piece in word])
            letter = int(rng.choice(text) if rng.random() < 0.5 else rng.integers(self.letters))
            written = first_letter + text if self.spelled else word
            inputs[t : t + len(written)] = written
            t += len(written)
            inputs[t] = first_letter + letter
            targets[t] = first_count + int((text == letter).sum())
            t += 1
        return inputs, targets

    def _word(
        self, rng: np.random.Generator, size: int, shares: npt.NDArray[np.float64] | None
    ) -> Ids:
        """That many tokens; equally frequent without `shares`."""
        if shares is None:
            return rng.integers(self.pieces, size=size)
        return rng.choice(self.pieces, size=size, p=shares)

    def spelling(self) -> list[npt.NDArray[np.int64]]:
        """The letters of each token, by number."""
        return _spelling(self.spelling_seed, self.pieces, self.letters, self.piece_length)


@functools.lru_cache(maxsize=16)
def _spelling(seed: int, pieces: int, letters: int, most: int) -> list[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(letters, size=int(rng.integers(1, most + 1))) for _ in range(pieces)]
