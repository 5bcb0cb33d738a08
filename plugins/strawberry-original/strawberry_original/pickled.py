"""Read plain data from a pickle without running it.

A pickle is a program. Plain data (dicts, lists, tuples, texts, bytes, numbers, booleans and None)
needs few instructions. A file with any other instruction is refused before the first one runs. So
no name is looked up and nothing is called, whatever the file contains.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
from pathlib import Path
from typing import Any, NoReturn

from strawberry.data import read_bytes
from strawberry.errors import StrawberryError

PLAIN = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT",
    "BININT", "BININT1", "BININT2", "LONG1",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
})  # fmt: skip
"""The instructions for plain data."""


def load_plain(path: Path) -> Any:
    """The plain data of a pickle file, in protocols 2 to 5.

    Raises:
        StrawberryError: it can't be read, is not a pickle, is truncated, or contains more than
            plain data; with the byte position.
    """
    content = read_bytes(path)
    end = _check(path, content)
    if end != len(content):
        raise StrawberryError(f"{path}: byte {end}: data after the end of the pickle")
    try:
        return _Reader(io.BytesIO(content)).load()
    except Exception as error:  # whatever a damaged file provokes
        raise StrawberryError(f"{path}: a damaged pickle: {error}") from error


def _check(path: Path, content: bytes) -> int:
    """Raise StrawberryError unless all instructions are plain; returns their end."""
    at = 0
    try:
        with warnings.catch_warnings():  # the argument of an instruction is read before its name
            warnings.simplefilter("ignore")
            for instruction, argument, position in pickletools.genops(content):
                at = int(position or 0)
                if instruction.name not in PLAIN:
                    raise StrawberryError(
                        f"{path}: byte {at}: refused instruction {instruction.name}: plain data "
                        "doesn't need it, and it can run code; nothing was run"
                    )
                # The reader makes room for as many entries as this number says.
                if instruction.name == "LONG_BINPUT" and int(argument or 0) > len(content):
                    raise StrawberryError(f"{path}: byte {at}: an entry out of range")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise StrawberryError(f"{path}: after byte {at}: incomplete pickle: {reason}") from error
    return at + 1


class _Reader(pickle.Unpickler):
    """A second safeguard: if an instruction looked up a name after all, it would find none."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")
