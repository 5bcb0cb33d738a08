"""Letter counting whose asked letters have ids of their own: for `letters_marked.yaml`."""

import numpy as np

from strawberry.components.task.letter_counting import LetterCounting
from strawberry.contracts.data import Ids
from strawberry.plugin import Registry, hookimpl


class MarkedLetters(LetterCounting):
    """`letter_counting` in which no letter of a spelled word can be taken for the asked one.

    There, letters of words and asked letters have the same ids, so that nothing marks where a word
    ends. Here an asked letter of the spelled form has the id of a token, which that form doesn't
    use; the form whose letters are hidden is as it was.
    """

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets (length,); each question's letter has the count."""
        inputs, targets = super().example(rng, vocab_size, length, training=training)
        if self.spelled:
            inputs[targets >= 0] -= self.pieces
        return inputs, targets


@hookimpl
def strawberry_register(registry: Registry) -> None:
    """Register `marked_letters`."""
    registry.task("marked_letters", MarkedLetters)
