import os
import platform
import subprocess
import sys

import pytest

from strawberry.runs import memory

PROBE = """
import resource, runpy
kept = runpy.run_path({file!r})["keep_freed_memory"]({wanted})
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = b"x" * (40 << 20)
del block
before = faults()
for _ in range(20):
    block = b"x" * (40 << 20)
    del block
print(kept, faults() - before)
"""


def probe(wanted: bool, **environment: str) -> tuple[bool, int]:
    """Whether memory was kept, and the page faults of twenty large blocks in a fresh process."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(file=memory.__file__, wanted=wanted)],
        capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    kept, faults = result.stdout.split()
    return kept == "True", int(faults)


def on_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not on_glibc(), reason="only glibc has mallopt")
def test_freed_blocks_are_used_again_without_page_faults() -> None:
    """Large blocks allocated over and over cost next to no page faults when memory is kept."""
    kept, quiet = probe(True, STRAWBERRY_KEEP_MEMORY="1")
    plain, loud = probe(False)
    assert (kept, plain) == (True, False)
    assert loud > 50_000
    assert quiet < loud / 20


@pytest.mark.skipif(not on_glibc(), reason="only glibc has mallopt")
def test_the_environment_can_say_no() -> None:
    """STRAWBERRY_KEEP_MEMORY=0 wins over the recipe."""
    kept, faults = probe(True, STRAWBERRY_KEEP_MEMORY="0")
    assert not kept
    assert faults > 50_000


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the C library is not glibc nothing is called."""
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not memory.keep_freed_memory(True)
