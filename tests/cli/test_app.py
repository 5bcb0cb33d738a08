"""The boundary: what reaches a user, on which stream, and with which exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from strawberry.cli import main
from strawberry.cli.app import as_command, hoist, run
from strawberry.cli.overview import VERBS, CommandEntry
from strawberry.errors import Location, Problem, RecipeError, StrawberryError
from tests.plugin.fakes import FakeSite, registers

WAYS = {
    "recipe": RecipeError(
        [
            Problem("unknown key 'x [red]'", Location("a/b.yaml", 3, 5), "model.stack[0]"),
            Problem("missing", Location("a/b.yaml", 9, 1)),
        ]
    ),
    "mistake": StrawberryError("no [bold] run at " + "/very/long" * 30),
    "interrupt": KeyboardInterrupt(),
    "exit": typer.Exit(3),
    "system": SystemExit(143),
    "abort": typer.Abort(),
    "bug": RuntimeError("a bug"),
}


def command(way: str) -> None:
    """Raise in one of several ways."""
    raise WAYS[way]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb `fall` that raises."""
    monkeypatch.setitem(VERBS, "fall", CommandEntry(f"{__name__}:command", "Raise."))


def test_recipe_errors_are_printed_as_they_are(
    verb: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Located errors begin with their location, with brackets kept, and the exit code is 2."""
    assert run(["fall", "recipe"]) == 2

    expected = "a/b.yaml:3:5: model.stack[0]: unknown key 'x [red]'\na/b.yaml:9:1: missing\n"
    assert capsys.readouterr() == ("", expected)


def test_other_errors_are_one_unwrapped_line(
    verb: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is one line however long its paths are, and keeps its brackets."""
    assert run(["fall", "mistake"]) == 2

    assert capsys.readouterr().err == f"error: {WAYS['mistake']}\n"


@pytest.mark.parametrize(("way", "code"), [("interrupt", 130), ("exit", 3), ("abort", 1)])
def test_exit_codes(verb: None, way: str, code: int) -> None:
    """Interrupts, exits and aborts end with their codes."""
    assert run(["fall", way]) == code


def test_system_exit_and_bugs_pass(verb: None) -> None:
    """A verb may end the process itself; a bug of ours keeps its traceback."""
    with pytest.raises(SystemExit) as caught:
        run(["fall", "system"])
    assert caught.value.code == 143
    with pytest.raises(RuntimeError, match="a bug"):
        run(["fall", "bug"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plguins"], "unknown command 'plguins'; did you mean 'plugins'?; see `strawberry --"),
        (["xyzzy"], "unknown command 'xyzzy'; see `strawberry --help`"),
        (["plugins", "--jsn"], "no such option: --jsn"),
        (["fall"], "see `strawberry fall --help`"),
        (["components", "a", "b", "c"], "see `strawberry components --help`"),
        (["--plugin"], "'--plugin' requires an argument"),
    ],
)
def test_usage_errors(
    verb: None, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong command line is one line that says where to read more, with exit code 2."""
    assert run(arguments) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert expected in err


def test_global_options_may_stand_anywhere() -> None:
    """Plugin options are moved to the front, values and all; what follows `--` stays."""
    assert hoist(["build", "--plugin", "a.py", "r.yaml", "--no-plugin=b", "--", "--plugin"]) == [
        "--plugin", "a.py", "--no-plugin=b", "build", "r.yaml", "--", "--plugin",
    ]  # fmt: skip


def test_plugin_options_reach_the_loader(
    site: FakeSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A local file brings its components; a plugin that is named with --no-plugin is disabled."""
    site.install("one", "1 / 0")
    file = tmp_path / "mine.py"
    file.write_text(registers("registry.router('mine', 'm:M')"), encoding="utf-8")

    assert run(["components", "router", "--plugin", str(file), "--no-plugin", "one"]) == 0

    out, err = capsys.readouterr()
    assert "mine" in out
    assert err == ""


def test_broken_plugin_is_one_warning(site: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands work beside a broken plugin, and name it in one line on standard error."""
    site.install("bad", "import no_such_package")

    assert run(["components", "norm"]) == 0

    out, err = capsys.readouterr()
    assert "rmsnorm" in out
    assert len(err.splitlines()) == 1
    assert "warning: plugin 'bad' (bad 1.0) failed to load: ModuleNotFoundError" in err


def test_version_lists_plugins(site: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names us, Python, torch and every plugin, broken ones too."""
    site.install("bad", "1 / 0", version="7.1")

    assert run(["--version"]) == 0

    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("strawberry-lab ")
    assert "plugin API 1" in first
    assert second == "plugin bad: bad 7.1, broken"


def test_strict_mode_stops_a_command(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With STRAWBERRY_STRICT_PLUGINS a broken plugin is an error."""
    site.install("bad", "1 / 0")
    monkeypatch.setenv("STRAWBERRY_STRICT_PLUGINS", "1")

    assert run(["components"]) == 2
    assert "error: plugin 'bad'" in capsys.readouterr().err


def test_app_with_one_command_stays_a_group() -> None:
    """A verb that is an app keeps its subcommands, even if there is only one."""
    app = typer.Typer(help="Two words [here].")
    app.command("train")(lambda: None)

    group = as_command(app, "tokenizer")

    assert list(group.commands) == ["train"]
    assert group.name == "tokenizer"


def test_brackets_in_help_are_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Help texts are not read as markup."""
    monkeypatch.setitem(VERBS, "odd", CommandEntry(f"{__name__}:odd", "Odd."))

    assert run(["odd", "--help"]) == 0
    assert "stack[red] of it" in capsys.readouterr().out


def odd() -> None:
    """Take model.stack[red] of it."""


def test_reader_that_leaves_early() -> None:
    """A closed pipe ends a command quietly."""
    code = "from strawberry.cli.app import run; import sys; sys.exit(run(['components', '--json']))"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=pipe, stderr=subprocess.PIPE, check=False
        )

    assert (result.returncode, result.stderr) == (1, b"")


def test_main_runs_the_application(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The console script exits with the application's code."""
    monkeypatch.setattr(sys, "argv", ["strawberry", "plguins"])

    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 2


TEARDOWN = """
import atexit, sys, threading, time
from strawberry.cli import main

class Last:
    def __del__(self):
        print("taken apart")

last = Last()
threading.Thread(target=lambda: (time.sleep(0.1), print("waited for"))).start()
atexit.register(print, "left")
sys.argv = ["strawberry", "plguins"]
main()
"""


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (None, ["waited for", "left", "taken apart"]),
        ("0", ["waited for", "left"]),
    ],
)
def test_a_rank_leaves_before_the_interpreter_is_taken_apart(
    rank: str | None, said: list[str]
) -> None:
    """Threads are waited for and handlers run, and a thread of torch's can't abort the rest."""
    environment = os.environ if rank is None else {**os.environ, "RANK": rank}
    result = subprocess.run(
        [sys.executable, "-c", TEARDOWN],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert (result.returncode, result.stdout.splitlines()) == (2, said)


def test_completion_knows_the_verbs() -> None:
    """A shell that completes is told the names of the verbs."""
    result = subprocess.run(
        [sys.executable, "-c", "from strawberry.cli import main; main()"],
        env={
            **os.environ,
            "_STRAWBERRY_COMPLETE": "complete_bash",
            "COMP_WORDS": "strawberry pl",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert "plugins" in result.stdout.split()
    assert result.stderr == ""


def test_plugin_that_kills_the_interpreter(site: FakeSite) -> None:
    """Help does not import it, --no-plugin goes on without it, and a crash shows its file."""
    site.install("bad", "import os\nos.abort()")

    def strawberry(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; sys.argv[1:] = {arguments!r}; import strawberry.cli as c; c.main()"
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(site.folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert strawberry("--help").returncode == 0
    assert strawberry("--no-plugin", "bad", "--version").returncode == 0
    crash = strawberry("--version")
    assert crash.returncode < 0
    assert "bad_manifest.py" in crash.stderr
