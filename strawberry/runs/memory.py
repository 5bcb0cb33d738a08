"""Memory: an allocator setting, and advice when memory runs out.

On a CPU, most of a small training step is page faults. glibc returns a large block to the system as
soon as it is freed, and maps a new one, page by page, for the next activation. With this setting it
keeps freed memory and reuses the same pages in every step.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from strawberry.errors import StrawberryError

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe
    from strawberry.runs.folder import RunFolder

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
VARIABLE = "STRAWBERRY_KEEP_MEMORY"


def keep_freed_memory(wanted: bool = True) -> bool:
    """Make glibc's allocator keep freed memory; True on success.

    Does nothing if `wanted` is False, if the variable STRAWBERRY_KEEP_MEMORY is 0, or with another
    C library. It increases resident memory, and affects only later allocations.
    """
    if not wanted or os.environ.get(VARIABLE) == "0" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    done = [libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)]
    libc.mallopt(M_TOP_PAD, 64 << 20)
    return all(done)


class OutOfMemory(StrawberryError):  # noqa: N818 (a state of the machine)
    """The memory of the device or machine is full; the text says which fields to lower."""


@contextlib.contextmanager
def within_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raise OutOfMemory with this advice if an allocation fails inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
        reason = (str(error).strip().splitlines() or ["an allocation failed"])[0]
        raise OutOfMemory(f"out of memory: {reason}\n  {advice()}") from error


@contextlib.contextmanager
def explained(recipe: Recipe, run: RunFolder) -> Iterator[None]:
    """Raise OutOfMemory for errors of torch and Python about failed allocations."""

    def advice() -> str:
        train, model = recipe.train, recipe.model
        suggestions = []
        if train.batch_size > 1:
            suggestions.append(
                f"lower train.batch_size (now {train.batch_size}) and raise "
                f"train.gradient_accumulation_steps (now {train.gradient_accumulation_steps}) "
                "by the same factor: a step keeps its rows and its loss"
            )
        suggestions.append(f"lower model.block_size (now {model.block_size})")
        kept = any(run.checkpoints.glob("step-*"))
        after = "; the last checkpoint remains, and --resume continues from it" if kept else ""
        return f"{', or '.join(suggestions)}{after}"

    with within_memory(advice):
        yield


def is_exhaustion(error: BaseException) -> bool:
    """Return whether memory ran out; CPU allocators say so only in the exception's text."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return "can't allocate memory" in text or "not enough memory" in text
