"""Keeping freed memory: on a CPU, most of a small training step is page faults.

glibc gives a large block back to the system as soon as it is freed and maps a fresh one for the
next activation, page by page. Told to keep what it has, it reuses the same pages step after step.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
VARIABLE = "STRAWBERRY_KEEP_MEMORY"


def keep_freed_memory(wanted: bool = True) -> bool:
    """Tell glibc's allocator to keep memory; True if it now does.

    Does nothing if `wanted` is False, if the variable STRAWBERRY_KEEP_MEMORY is 0, or where the C
    library is another one. Costs some resident memory; affects blocks that are allocated later.
    """
    if not wanted or os.environ.get(VARIABLE) == "0" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    done = [libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)]
    libc.mallopt(M_TOP_PAD, 64 << 20)
    return all(done)
