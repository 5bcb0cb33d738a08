"""Checks of a tokenizer's ids: whole numbers within its vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from strawberry.errors import PluginError

if TYPE_CHECKING:
    from strawberry.contracts.data import Tokenizer


def checked_ids(ids: Any, tokenizer: Tokenizer) -> npt.NDArray[np.uint32]:
    """The ids of a text; raises PluginError, which names the tokenizer, if they are invalid."""
    array = np.asarray(ids)
    if not array.size:
        return np.zeros(0, np.uint32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        what = f"{array.dtype}, such as {array.flat[0]!s}"
        raise PluginError(f"{_name(tokenizer)}: ids must be whole numbers, got {what}")
    for i in (int(array.min()), int(array.max())):
        if not 0 <= i < tokenizer.vocab_size:
            raise PluginError(
                f"{_name(tokenizer)}: returned id {i}, outside its vocabulary of "
                f"{tokenizer.vocab_size}"
            )
    return array.astype(np.uint32, copy=False)


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raises PluginError unless its vocabulary has a size, and its `eot` is in it."""
    size, eot = tokenizer.vocab_size, tokenizer.eot
    for name, value in (("vocab_size", size), ("eot", eot)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise PluginError(f"{_name(tokenizer)}: {name} must be a whole number, got {value!r}")
    if not 0 <= eot < size:
        raise PluginError(f"{_name(tokenizer)}: its eot is {eot}, outside its vocabulary of {size}")


def _name(tokenizer: Tokenizer) -> str:
    return f"tokenizer {tokenizer.use or type(tokenizer).__qualname__}"
