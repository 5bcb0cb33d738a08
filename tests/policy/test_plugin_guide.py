"""The authors' guide is true: its files work, and its commands print what it says."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.environments import environment, shell, short_run

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "plugins" / "README.md"
UPDATE = "UPDATE_README" in os.environ


def spoken(output: str, folder: Path) -> list[str]:
    """The lines of an output, with places as seen from this folder or from the repository.

    A machine that takes seconds to import torch says that it waits for the plugin which does so.
    """
    output = output.replace(f"{folder}/", "").replace(f"{ROOT}/", "")
    lines = [line.rstrip() for line in output.splitlines()]
    return [line for line in lines if not line.startswith("warning: waiting for plugin")]


def exact(block: str) -> list[str]:
    """The lines of a block without decimal fractions: times, rounding, ratios.

    Of what takes over a minute pytest says the time twice.
    """
    block = re.sub(r"(?<=s) \(\d+:\d\d:\d\d\)", "", block)
    return re.sub(r"\b\d+(\.\d+)?e-\d+|\b\d+\.\d+(e\+\d+)?|\b0\b", "#", block).splitlines()


def carried_out(block: str, folder: Path, env: dict[str, str]) -> str:
    """The block with what its commands print."""
    lines = []
    for command in re.findall(r"^\$ (.*)$", block, flags=re.MULTILINE):
        done = shell(command, folder, env)
        assert "Traceback" not in done.stdout, done.stdout
        lines += [f"$ {command}", *spoken(done.stdout, folder)]
    return "".join(f"{line}\n" for line in lines)


LONG = ("check attention/local", "pytest")
"""Commands that run all checks, which the slow form of the test carries out."""


@pytest.mark.parametrize("every", [UPDATE, pytest.param(True, marks=pytest.mark.slow)])
def test_every_block_works(every: bool, tmp_path: Path) -> None:
    """Files are written, commands run one after another; UPDATE_README=1 writes what they print."""
    text = GUIDE.read_text()
    env = environment(tmp_path / "environment")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    differ = []
    for language, block in re.findall(
        r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL
    ):
        if language == "console":
            if not every and any(command in block for command in LONG):
                continue
            said = carried_out(block, tmp_path, env)
            if exact(said) != exact(block):
                differ.append((block, said))
                text = text.replace(f"```console\n{block}", f"```console\n{said}")
        else:
            assert language in ("python", "toml"), language
            name = re.match(r"# (\S+)\n", block)
            assert name, f"a file's first line names it: {block[:40]}"
            (tmp_path / name[1]).parent.mkdir(exist_ok=True)
            (tmp_path / name[1]).write_text(block)
    if UPDATE:
        GUIDE.write_text(text)
        return
    for block, said in differ:
        assert exact(said) == exact(block)


def test_the_lifecycle_hooks_are_told(tmp_path: Path) -> None:
    """The plugin under 'Watching a run' hears of every event of a run."""
    (source,) = re.findall(r"```python\n(# loud.py\n.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    (tmp_path / "loud.py").write_text(source)
    sets = shlex.join(short_run(tmp_path, "train.max_iters=2"))
    env = environment(tmp_path / "environment")
    command = f"strawberry --plugin loud.py train {ROOT}/recipes/gpt2.yaml --run-dir run {sets}"
    said = carried_out(f"$ {command}\n", tmp_path, env)
    for event in ("built gpt2", "step 1 [", "evaluated [", "saved ", "finished"):
        assert f"\n{event}" in said, said


def test_every_kind_and_distribution_is_named() -> None:
    """Each kind that can be made has its row, and each distribution of the folder."""
    from strawberry.scaffold import kinds

    text = GUIDE.read_text()
    assert [kind for kind in kinds() if f"\n| {kind} | `" not in text] == []
    folders = [path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")]
    assert [name for name in folders if f"\n| `{name}` |" not in text] == []
