"""Text as its ids come: whatever the tokenizer, its pieces together are the text of all ids.

A tokenizer's decoder may look at more than one id: the first blank of a text is dropped, blanks
stand between some ids and not others, a character's bytes are spread over ids, and a run of bytes
that are not UTF-8 spoils what was right before. So ids are never decoded one by one. The text of
all is compared with what it was one id before, and what both begin with is given away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from strawberry.contracts.data import Tokenizer

REPLACED: Final = "\ufffd"
_CONTEXT: Final = 32
"""Ids that are decoded before those that are new; what begins a text is out of their reach."""
_WINDOW: Final = 256
"""Ids that are decoded at a time, about."""


class TextStream:
    """The text that ids add to those before them.

    Args:
        tokenizer: what decodes them.
        before: the ids that the text begins with, a prompt's; their own text is not given again.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._before = list(before)[-_CONTEXT:]
        self._ids: list[int] = []
        self._window = list(self._before)
        self._last = tokenizer.decode(self._window)
        self._given = len(self._last)  # characters of the window's text
        self._pieces: list[str] = []

    def add(self, token: int) -> str:
        """The piece of text that is settled with one more id; often a little less than it adds."""
        self.note(token)
        self._window.append(token)
        if self._tokenizer.unsettled(self._window):
            return ""
        now = self._tokenizer.decode(self._window)
        settled = _shared(self._last, now).rstrip(REPLACED)
        piece = settled[self._given :]
        self._given = max(self._given, len(settled))
        self._last = now
        if len(self._window) > _WINDOW:
            self._move()
        self._pieces.append(piece)
        return piece

    def note(self, token: int) -> None:
        """Add an id whose text nobody waits for; `end` then has it."""
        self._ids.append(token)

    def end(self) -> str:
        """What no piece has held yet, incomplete characters as the replacement character."""
        text, given = self.text(), "".join(self._pieces)
        return text[len(_shared(text, given)) :]

    def text(self) -> str:
        """The text of all ids so far."""
        whole = self._tokenizer.decode([*self._before, *self._ids])
        before = self._tokenizer.decode(self._before)
        return whole[len(_shared(before, whole)) :]

    def _move(self) -> None:
        """Begin the window later, where its text ends as before: decoding all is not for free."""
        window = self._window[-_CONTEXT:]
        text, waiting = self._tokenizer.decode(window), self._last[self._given :]
        if len(waiting) < len(text) and text.endswith(waiting):
            self._window, self._last, self._given = window, text, len(text) - len(waiting)


def _shared(one: str, two: str) -> str:
    """What two texts both begin with."""
    length = min(len(one), len(two))
    if one[:length] == two[:length]:
        return one[:length]
    return one[: next(place for place in range(length) if one[place] != two[place])]
