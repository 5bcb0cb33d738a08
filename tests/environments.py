"""A virtual environment of its own for a test, which sees this one's packages."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

_FROM_HERE = '[ "$1" = install ] && set -- "$@" --no-build-isolation --no-deps --no-index\n'

TERMINAL = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
"""A terminal as the documentation has it."""


def environment(folder: Path) -> dict[str, str]:
    """Make one in `folder`; returns the variables of a process in it.

    What is installed in it stays in it. Its `pip` builds with the setuptools that is here and
    fetches nothing.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    # As site directories, so that their own .pth files, those of editable installs, count too.
    above = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(above)]
    (packages(folder) / "above.pth").write_text("\n".join(lines) + "\n")
    for name, more in (("strawberry", ""), ("pytest", ""), ("pip", _FROM_HERE)):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\n{more}exec "{folder}/bin/python" -m {name} "$@"\n')
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}"
        + os.environ["PATH"],
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:xdist",
        "PYTHONWARNINGS": "ignore",  # setuptools warns at every editable installation
        **TERMINAL,
    }


def packages(folder: Path) -> Path:
    """Where distributions are installed in the environment in `folder`."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))


def shell(command: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command line, as it is documented; both streams are in `stdout`."""
    return subprocess.run(
        command, shell=True, cwd=folder, env=env, text=True, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def short_run(folder: Path, *more: str) -> list[str]:
    """The options of `strawberry train` for a run of seconds, on a text that is put in `folder`."""
    text = folder / "text.txt"
    text.write_text("a strawberry is red. " * 300)
    small = ["model.block_size=16", "model.vocab_size=257", "tokenizer=bytes",
             "train.eval_iters=1", f"data={{use: text, path: {text}}}", *more]  # fmt: skip
    return [word for pair in small for word in ("--set", pair)]
