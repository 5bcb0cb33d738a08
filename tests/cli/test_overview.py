"""The static help is quick, and says what the commands say of themselves."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from strawberry.cli.app import LazyGroup, run
from strawberry.cli.overview import OPTIONS, VERBS, overview

SCRIPT = Path(sys.executable).with_name("strawberry")


def written(verb: str) -> bool:
    """Whether the verb's module is there."""
    return importlib.util.find_spec(VERBS[verb].target.partition(":")[0]) is not None


@pytest.mark.parametrize("verb", VERBS)
def test_static_help_is_the_command_s_own(verb: str) -> None:
    """The line shown without importing a verb is the first line of that verb's own help."""
    if not written(verb):
        pytest.skip("not written yet")
    command = LazyGroup(name="strawberry").get_command(None, verb)

    assert command.help.splitlines()[0].replace("\\[", "[") == VERBS[verb].help


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`strawberry VERB --help` works for every verb."""
    if not written(verb):
        pytest.skip("not written yet")

    assert run([verb, "--help"]) == 0
    assert VERBS[verb].help.split()[0] in capsys.readouterr().out


def test_overview_fits_a_terminal() -> None:
    """The overview names every verb and option, in 80 columns."""
    text = overview()

    assert [line for line in text.splitlines() if len(line) > 80] == []
    for name in (*VERBS, *OPTIONS):
        assert f"\n  {name} " in text


def test_group_shows_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    """The quick path and the application show the same help."""
    assert run(["--help"]) == 0
    assert capsys.readouterr().out == overview() + "\n"
    assert run([]) == 0
    assert capsys.readouterr().out == overview() + "\n"


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"torch", "numpy", "pydantic", "typer", "rich", "strawberry.plugin"}),
        (["--version"], {"torch", "numpy", "rich"}),
        (["plugins", "--json"], {"torch", "numpy"}),
        (["components"], {"torch", "numpy"}),
    ],
)
def test_quick_commands_import_nothing_heavy(arguments: list[str], absent: set[str]) -> None:
    """Help, versions, and the lists of plugins and components are had without torch."""
    code = (
        "import sys; from strawberry.cli import main\n"
        f"sys.argv = ['strawberry', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print({absent!r} & set(sys.modules), file=sys.stderr)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stderr.splitlines()[-1] == "set()"


@pytest.mark.skipif(os.name == "nt", reason="child CPU times are not known there")
def test_help_is_quick() -> None:
    """`strawberry --help` takes less than 0.3 s of CPU (the best of three)."""
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([SCRIPT, "--help"], check=True, capture_output=True)
        after = os.times()
        seconds.append(
            after.children_user - before.children_user
            + after.children_system - before.children_system
        )  # fmt: skip

    assert min(seconds) < 0.3
