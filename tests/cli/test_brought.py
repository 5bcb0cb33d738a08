"""Commands that plugins bring: found when they are asked for, and told apart from ours."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from strawberry.cli.app import run
from tests.plugin.fakes import FakeSite, registers

VERB = """
import typer
from strawberry.errors import StrawberryError

command = typer.Typer()

@command.command("say")
def say(word: str) -> None:
    '''Say a word.'''
    if word == "no":
        raise StrawberryError("no is not said")
    print("said", word)

def alone(number: int) -> None:
    '''Count.'''
    print("counted", number)

@command.command("other")
def other() -> None: ...

words = 3
"""


def brings(*commands: str) -> str:
    """The manifest of a plugin with these commands, each as `name target`."""
    lines = (f"registry.command(*{(*text.split(), 'Do it.')!r})" for text in commands)
    return registers("; ".join(lines))


@pytest.fixture
def talker(site: FakeSite) -> FakeSite:
    """A plugin with an app, a function, and targets that are neither."""
    site.module("talk_cli", VERB)
    targets = ("talk talk_cli:command", "count talk_cli:alone", "three talk_cli:words",
               "gone talk_cli:gon", "lost no_such_module:x", "train talk_cli:alone")  # fmt: skip
    site.install("talker", brings(*targets))
    return site


def test_apps_and_functions_run(talker: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """A command is an app with commands of its own, or a function; both have their help."""
    assert run(["talk", "say", "hello"]) == 0
    assert run(["count", "3"]) == 0
    assert capsys.readouterr().out == "said hello\ncounted 3\n"
    assert run(["count", "--help"]) == 0
    assert "Count." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["talk", "say", "no"], "error: no is not said\n"),
        (
            ["talc"],
            "error: unknown command 'talc'; did you mean 'talk'?; see `strawberry --help`\n",
        ),
        (["count", "x"], "see `strawberry count --help`"),
        (["gone"], "plugin 'talker': command 'gone' (talk_cli:gon): that module has no 'gon'"),
        (["lost"], "plugin 'talker': command 'lost' (no_such_module:x): ModuleNotFoundError"),
        (["three"], "plugin 'talker': command 'three': "),
        (["--no-plugin", "talker", "talk"], "error: unknown command 'talk'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    expected: str,
    talker: FakeSite,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Mistakes of the user and of the plugin's author end with code 2 and one line."""
    assert run(arguments) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert len(err.splitlines()) == 1


def test_our_verbs_stay_ours(talker: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """A command with the name of a verb is never reached."""
    assert run(["train", "--help"]) == 0

    assert "Train a recipe's model" in capsys.readouterr().out


def test_two_owners_are_told_apart(talker: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that two plugins bring names them, and works once one is left out."""
    talker.install("rival", brings("count talk_cli:alone"))

    assert run(["count", "1"]) == 2
    assert "command 'count' is provided by rival and talker; `--no-pl" in capsys.readouterr().err
    assert run(["count", "1", "--no-plugin", "rival"]) == 0


def test_plugins_lists_them(talker: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """`strawberry plugins` shows each command with its line, as text and as JSON."""
    assert run(["plugins"]) == 0
    said = capsys.readouterr().out
    assert "command  talk: Do it.\n" in said
    assert "command  train: Do it. (unreachable: train is a command of Strawberry)\n" in said
    assert run(["plugins", "--json"]) == 0
    (record,) = [r for r in json.loads(capsys.readouterr().out)["plugins"] if r["commands"]]
    assert {"name": "talk", "target": "talk_cli:command", "help": "Do it."} in record["commands"]


def test_a_broken_plugin_is_in_no_one_s_way(
    talker: FakeSite, capsys: pytest.CaptureFixture[str]
) -> None:
    """One plugin's command that can't be registered leaves the other plugin's working."""
    talker.install("bad", brings("a b"))

    assert run(["count", "1"]) == 0

    out, err = capsys.readouterr()
    assert out == "counted 1\n"
    assert "plugin 'bad' (bad 1.0) failed to load" in err


def test_help_loads_no_plugin() -> None:
    """The overview and the help of our own verbs come without any plugin's manifest."""
    code = (
        "import sys; from strawberry.cli.app import run; run(['--help']); run(['plot', '--help']); "
        "sys.exit('strawberry.plugin' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
