"""Stream text while ids arrive: for any tokenizer, the pieces add up to the text of all ids.

A tokenizer's decoder may look at more than one id. Some drop the first space of a text or insert
spaces between certain ids; a character's bytes may spread over ids; and a run of bytes that are not
UTF-8 can change earlier text. Ids are therefore never decoded one by one. The text of all ids is
compared with the text one id before, and their common prefix is emitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from strawberry.contracts.tokenizer import Tokenizer

REPLACED: Final = "\ufffd"
_CONTEXT: Final = 32
"""Number of ids decoded before the new ones; the decoder's handling of a text's start doesn't reach
further.
"""
_WINDOW: Final = 256
"""Approximate number of ids decoded at a time."""


class TextStream:
    """The text that ids add to the ids before them.

    Args:
        tokenizer: the tokenizer.
        before: the ids of a prompt; their text is not emitted.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._before = list(before)[-_CONTEXT:]
        self._ids: list[int] = []
        self._window = list(self._before)
        self._last = tokenizer.decode(self._window)
        self._given = len(self._last)  # characters of the window's text that were emitted
        self._pieces: list[str] = []

    def add(self, token: int) -> str:
        """Add an id and return the text that has become final.

        The end of the id's own text may be held back, because a later id can still change it.
        """
        self.append(token)
        if self._tokenizer.unsettled(self._window):
            return ""
        now = self._tokenizer.decode(self._window)
        # Replacement characters at the end may be the first bytes of a character.
        settled = _common_prefix(self._last, now).rstrip(REPLACED)
        piece = settled[self._given :]
        self._given = max(self._given, len(settled))
        self._last = now
        if len(self._window) > _WINDOW:
            self._shrink_window()
        self._pieces.append(piece)
        return piece

    def append(self, token: int) -> None:
        """Add an id without emitting text; a later `add` or `end` returns its text."""
        self._ids.append(token)
        self._window.append(token)

    def end(self) -> str:
        """The remaining text, with incomplete characters as the replacement character."""
        text, given = self.text(), "".join(self._pieces)
        return text[len(_common_prefix(text, given)) :]

    def text(self) -> str:
        """The text of all ids so far."""
        whole = self._tokenizer.decode([*self._before, *self._ids])
        before = self._tokenizer.decode(self._before)
        return whole[len(_common_prefix(before, whole)) :]

    def _shrink_window(self) -> None:
        """Move the start of the window forward without changing its end, to decode less."""
        # Not where the shorter window decodes to another end: then a later id will do.
        window = self._window[-_CONTEXT:]
        text, waiting = self._tokenizer.decode(window), self._last[self._given :]
        if len(waiting) < len(text) and text.endswith(waiting):
            self._window, self._last, self._given = window, text, len(text) - len(waiting)


def _common_prefix(one: str, two: str) -> str:
    """The common prefix of two texts."""
    length = min(len(one), len(two))
    if one[:length] == two[:length]:
        return one[:length]
    return one[: next(place for place in range(length) if one[place] != two[place])]
