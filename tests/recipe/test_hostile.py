"""Hostile files: refused at their place, in a line or two, in bounded time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strawberry.recipe.yaml import MAX_BYTES
from tests.recipe.conftest import BASE, Wrong

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MANY = "contains more than 10000 values, with aliases expanded"
CASES: dict[str, tuple[str | bytes, list[str]]] = {
    "alias bomb": (ALIASES, [f"r.yaml:4:36: {MANY}"]),
    "merge-key bomb": (MERGES, [f"r.yaml:5:17: {MANY}"]),
    "binary without zero": (
        b"\x89PNG\r\n",
        ["r.yaml:1:1: is not UTF-8 text; a recipe must be YAML"],
    ),
    "self-alias": ("a: &x [*x]\n", ["r.yaml:1:8: *x: an alias contains itself"]),
    "deep lists": ("[" * 100_000, ["r.yaml:1:62: is nested deeper than 60"]),
    "deep mappings": (
        "\n".join("  " * i + "a:" for i in range(300)),
        ["r.yaml:61:121: is nested deeper than 60"],
    ),
    "long number": (
        f"seed: {'9' * 200_000}\n",
        ["r.yaml:1:7: a number of 200000 digits is too large"],
    ),
    "many values": ("a: [" + "1," * 30_000 + "]", [f"r.yaml:1:19999: {MANY}"]),
    "50 MB": (b"a" * (50 << 20), ["r.yaml:1:1: is too large: more than 256 KiB"]),
    "code in a tag": (
        "a: !!python/object/apply:os.system [touch canary]\n",
        ["r.yaml:1:4: tags such as tag:yaml.org,2002:python/object/apply:os.system are refused"],
    ),
    "nested repeats": (
        BASE.replace(
            "- attention", "- repeat: 10000\n      stack: [{repeat: 10000, ffn: mlp}]\n#"
        ).replace("      ffn", "#"),
        [
            "r.yaml:7:7: model.stack[0]: makes 100000000 blocks with 100000000 uses; "
            "the limits are 10000 blocks and 100000 uses"
        ],
    ),
}


@pytest.mark.faults(33, 34)
@pytest.mark.parametrize("name", CASES)
def test_refused_in_a_line_or_two(name: str, wrong: Wrong, folder: Path) -> None:
    """Each wrong recipe is refused at its place, within a second, and nothing is executed."""
    text, expected = CASES[name]
    started = time.process_time()

    lines = wrong(text)

    assert lines == expected
    assert time.process_time() - started < 2.0  # well under one on an idle machine
    assert [file.name for file in folder.iterdir()] == ["r.yaml"]


def test_cyclic_extends(wrong: Wrong, folder: Path) -> None:
    """A cycle over several files is named in full."""
    (folder / "a.yaml").write_text("extends: b.yaml\n")
    (folder / "b.yaml").write_text("extends: a.yaml\n")

    (line,) = wrong("extends: a.yaml\n")

    assert line == ("b.yaml:1:10: extends: extends itself: r.yaml -> a.yaml -> b.yaml -> a.yaml")


@pytest.mark.faults(33)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n" * (MAX_BYTES - 1), id="newlines"),
        pytest.param("a " * (MAX_BYTES // 2 - 1), id="words"),
        pytest.param("a\n" * (MAX_BYTES // 2 - 1), id="lines"),
        pytest.param('"' + "\\n" * (MAX_BYTES // 2 - 2) + '"', id="escapes"),
        pytest.param("{" + "a," * (MAX_BYTES // 2 - 1), id="keys"),
        pytest.param("%A b\n" * (MAX_BYTES // 5 - 1), id="directives"),
        pytest.param("".join(f"- &a{i} 1\n" for i in range(9000)), id="anchors"),
        pytest.param("[" * 55 + "a," * (MAX_BYTES // 2 - 60), id="long deep list"),
    ],
)
def test_time_is_bounded(text: str, wrong: Wrong) -> None:
    """The costliest texts within the size limit are refused in about a second of CPU at most."""
    started = time.process_time()

    lines = wrong(text)

    assert 1 <= len(lines) <= 2
    assert time.process_time() - started < 3.0


def test_json_with_hostile_quotes(wrong: Wrong) -> None:
    """Taking the comments out of JSON takes time in proportion to its length."""
    started = time.process_time()

    wrong('"' + '\\"' * 100_000, name="r.json")

    assert time.process_time() - started < 2.0


@pytest.mark.faults(33)
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_memory_is_bounded(folder: Path) -> None:
    """The bombs are refused by the reader within 100 MB over what Python itself takes."""
    (folder / "alias.yaml").write_text(ALIASES)
    (folder / "merge.yaml").write_text(MERGES)
    (folder / "deep.yaml").write_text("[" * 100_000)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from strawberry.recipe.yaml import read_tree\n"
        "from strawberry.errors import RecipeError\n"
        "before = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (before + (100 << 20),) * 2)\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_tree(Path(name))\n"
        "    except RecipeError as error: print(error)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, "alias.yaml", "merge.yaml", "deep.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_no_more_than_fifty_problems(wrong: Wrong) -> None:
    """Thousands of problems are counted, not listed."""
    lines = wrong(BASE + "".join(f"k{i}: 1\n" for i in range(4000)))

    assert len(lines) == 51
    assert lines[-1].endswith("and 3950 more problems")
