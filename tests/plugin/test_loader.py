"""Everything that pluggy leaves silent or fatal is said, and stays with the plugin that did it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from strawberry.errors import PluginError
from strawberry.plugin import PluginRecord, Plugins, loader as loader_module
from tests.plugin.fakes import FakeSite, registers

GOOD = registers("registry.attention('good', 'good_parts:Good')")


def record(plugins: Plugins, name: str) -> PluginRecord:
    """The one record of that name."""
    (found,) = [r for r in plugins.records if r.name == name]
    return found


def assert_alone(site: FakeSite, name: str = "bad", status: str = "broken") -> PluginRecord:
    """Load beside a good plugin; the bad one alone is unusable, and is warned of in one line."""
    site.install("z-good", GOOD)
    plugins = Plugins.load()
    bad = record(plugins, name)

    assert status == bad.status
    assert record(plugins, "z-good").status == "ok"
    assert record(plugins, "strawberry").status == "ok"
    assert [
        e.full_name for e in plugins.registry.entries("attention") if e.plugin != "strawberry"
    ] == ["z-good/good"]
    assert bad.error
    assert "\n" not in bad.error
    assert bad.entries == []
    (line,) = [line for line in plugins.warnings if repr(name) in line]
    assert bad.error in line
    return bad


@pytest.mark.faults(38)
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = = 1", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(): f()\nf()", "RecursionError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_import_failure_is_contained(site: FakeSite, source: str, expected: str) -> None:
    """A plugin that can't be imported is reported with its file; all others load."""
    site.install("bad", source)

    bad = assert_alone(site)

    assert expected in bad.error
    assert "bad_manifest.py:" in bad.error
    assert "bad_manifest.py" in bad.traceback
    assert "importlib" not in bad.traceback


def test_keyboard_interrupt_is_not_contained(site: FakeSite) -> None:
    """Ctrl-C during a plugin's import stops the program."""
    site.install("bad", "raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        Plugins.load()


def test_missing_module(site: FakeSite) -> None:
    """An entry point to a module that does not exist names that module."""
    site.install("bad")

    assert "No module named 'bad_manifest'" in assert_alone(site).error


@pytest.mark.faults(38)
def test_same_entry_point_name_twice(site: FakeSite) -> None:
    """Two distributions that use one entry-point name both load, under names that say whose."""
    site.install("a-dist", registers("registry.ffn('a', 'a:A')"), entry="rope")
    site.install("b-dist", registers("registry.ffn('b', 'b:B')"), entry="rope")

    plugins = Plugins.load()

    assert [r.name for r in plugins.records if not r.builtin] == ["a-dist:rope", "b-dist:rope"]
    assert plugins.registry.find("ffn", "rope/a").full_name == "a-dist:rope/a"
    assert (plugins.warnings) == [
        "2 plugins have the name 'rope'; available: a-dist:rope and b-dist:rope"
    ]


def test_entry_point_named_like_the_builtin(site: FakeSite) -> None:
    """The built-in keeps its name, and the other plugin is renamed aloud."""
    site.install("a-dist", GOOD, entry="strawberry")

    plugins = Plugins.load()

    assert [r.name for r in plugins.records] == ["strawberry", "a-dist:strawberry"]
    assert plugins.records[0].builtin
    assert len(plugins.warnings) == 1


def test_same_entry_point_name_twice_in_one_distribution(site: FakeSite) -> None:
    """A name that can't be made unique breaks the second plugin, not the first."""
    site.install("a", GOOD, entry_points="[strawberry]\nx = a_manifest\nx = b_manifest\n")

    statuses = [(r.name, r.status) for r in Plugins.load().records if not r.builtin]

    assert statuses == [("a:x", "ok"), ("a:x", "broken")]


@pytest.mark.faults(38)
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "@hookimpl\ndef strawberry_registr(registry): ...",
            "unknown hook 'strawberry_registr'; did you mean 'strawberry_register'?",
        ),
        (
            "@hookimpl(specname='strawberry_step')\ndef other(step): ...",
            "unknown hook 'strawberry_step'; did you mean 'strawberry_step_done'?",
        ),
        ("def strawberry_register(registry): ...", "strawberry_register lacks @hookimpl"),
        (
            "def strawberry_step_don(step): ...",
            "strawberry_step_don lacks @hookimpl; did you mean 'strawberry_step_done'?",
        ),
        (
            "@hookimpl\ndef strawberry_register(registri): ...",
            "unknown argument 'registri'; did you mean 'registry'?",
        ),
        (
            "@hookimpl\ndef strawberry_step_done(step, metrics=None): ...",
            "argument 'metrics' must have no default",
        ),
        ("@hookimpl\ndef strawberry_step_done(*, step): ...", "plain arguments only, got 'step'"),
        ("@hookimpl\ndef strawberry_step_done(**all): ...", "plain arguments only, got '**all'"),
        (
            "@hookimpl(wrapper=True)\ndef strawberry_step_done(step): yield",
            "hook wrappers are not supported",
        ),
        ("x = 1", "it implements no hook"),
    ],
)
def test_hook_that_would_never_be_called_right(site: FakeSite, source: str, expected: str) -> None:
    """Misspelt, undecorated and miscalled hooks are errors that name the hook and the way out."""
    site.install("bad", f"from strawberry.plugin import hookimpl\n{source}")

    bad = assert_alone(site)

    assert expected in bad.error
    assert bad.hooks == []


def test_refused_plugin_leaves_no_hooks_behind(site: FakeSite) -> None:
    """A plugin that fails after it was registered with pluggy is taken out again."""
    site.install(
        "bad",
        """
        from strawberry.plugin import hookimpl
        @hookimpl
        def strawberry_register(registry):
            registry.ffn("half", "m:Half")
            raise RuntimeError("no")
        @hookimpl
        def strawberry_step_done(step): raise AssertionError
        """,
    )

    bad = assert_alone(site)

    assert "RuntimeError: no" in bad.error
    assert "bad_manifest.py:6" in bad.error
    plugins = Plugins.load()
    plugins.call("strawberry_step_done", run=Path(), step=1, metrics={})
    assert "half" not in [e.name for e in plugins.registry.entries("ffn")]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("registry.add('atention', 'x', 'm:X')", "unknown kind 'atention'; did you mean 'att"),
        ("registry.ffn('x', 'm.X')", "the target must be 'module:attribute'; got 'm.X'"),
        ("registry.ffn('x', dict)", "as text, so that nothing is imported"),
        ("registry.ffn('a/b', 'm:X')", "a name must be a letter"),
        ("registry.ffn('none', 'm:X')", "that word is reserved in recipes"),
        ("registry.ffn('x', 'm:X'); registry.ffn('x', 'm:Y')", "registered twice; first as m:X"),
    ],
)
def test_bad_registration(site: FakeSite, call: str, expected: str) -> None:
    """A registration that could not work breaks its plugin with a text that says why."""
    site.install("bad", registers(call))

    assert expected in assert_alone(site).error


def test_lazy_module_is_left_asleep(site: FakeSite) -> None:
    """A manifest with a lazy `__getattr__` and `__dir__` is not made to import everything."""
    site.install(
        "lazy",
        GOOD + "\ndef __dir__(): return ['strawberry_register', 'strawberry_more', 'heavy']"
        "\ndef __getattr__(name): raise AssertionError(name)",
    )

    assert record(Plugins.load(), "lazy").status == "ok"


def test_entry_point_that_names_no_module(site: FakeSite) -> None:
    """`module:attribute` in an entry point is refused before anything is imported."""
    site.install("bad", GOOD, entry_points="[strawberry]\nbad = bad_manifest:thing\n")

    assert "must name a module" in assert_alone(site).error
    assert "bad_manifest" not in sys.modules


def test_unreadable_entry_points(site: FakeSite) -> None:
    """A malformed entry_points.txt is its own distribution's problem."""
    site.install("bad", entry_points="[strawberry]\nthis is not an entry point\n")

    assert "can't read its entry_points.txt" in assert_alone(site).error


def test_malformed_entry_points_of_strangers_are_ignored(site: FakeSite) -> None:
    """A malformed entry_points.txt without our group is none of our business."""
    site.install("stranger", entry_points="[other]\nthis is not an entry point\n")
    site.install("good", GOOD)

    plugins = Plugins.load()

    assert [r.name for r in plugins.records] == ["strawberry", "good"]
    assert plugins.warnings == []


def test_requirement_is_checked_before_the_import(site: FakeSite) -> None:
    """A distribution that was made for another version of ours is not imported."""
    site.install("bad", "raise AssertionError", requires=("numpy", "Strawberry.Lab<0.0.1"))

    bad = assert_alone(site, status="incompatible")

    assert bad.error.startswith("needs strawberry-lab<0.0.1, this is ")


@pytest.mark.parametrize("requirement", ["strawberry-lab>=0.0.1", "strawberry-lab %%", "numpy"])
def test_met_or_unreadable_requirement(site: FakeSite, requirement: str) -> None:
    """A requirement that is met, can't be read or is of another package does not matter."""
    site.install("good", GOOD, requires=(requirement, "strawberry-lab<0.0.1; extra == 'old'"))

    assert record(Plugins.load(), "good").status == "ok"


def test_api_range(site: FakeSite) -> None:
    """A plugin for another API version is incompatible, and its components are not there."""
    site.install("bad", GOOD + "\nstrawberry_api = '>=2,<3'")

    assert (
        assert_alone(site, status="incompatible").error
    ) == "supports plugin API >=2,<3, this is 1"


@pytest.mark.parametrize("value", ["'one'", "1", "None.__class__"])
def test_unreadable_api_range(site: FakeSite, value: str) -> None:
    """A declared range that is none says what one looks like."""
    site.install("bad", GOOD + f"\nstrawberry_api = {value}")

    assert "is not a version range" in assert_alone(site).error


def test_declared_api_range_is_kept(site: FakeSite) -> None:
    """The record has the range that a plugin declares."""
    site.install("good", GOOD + "\nstrawberry_api = '>=1,<2'")

    assert record(Plugins.load(), "good").api == ">=1,<2"


@pytest.mark.faults(38)
def test_prints_go_to_standard_error(site: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """What a plugin prints on import can't get into the output of a command."""
    site.install("good", GOOD + "\nprint('hello')")

    Plugins.load()

    assert capsys.readouterr() == ("", "hello\n")


def test_one_module_under_two_names(site: FakeSite) -> None:
    """A second entry point to the same module is refused, and says so."""
    site.install("a", GOOD, module="shared_manifest")
    site.install("b", module="shared_manifest")

    plugins = Plugins.load()

    assert record(plugins, "a").status == "ok"
    assert "already loaded" in record(plugins, "b").error


def test_slow_import_is_named_while_it_lasts(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a slow plugin is told which one it is, and how to do without."""
    monkeypatch.setattr(loader_module, "SLOW_SECONDS", 0.05)
    site.install("slow", GOOD + "\nimport time; time.sleep(0.3)")
    said: list[str] = []

    plugins = Plugins.load(notice=said.append)

    assert len(said) == 1
    assert "`--no-plugin slow`" in said[0]
    assert record(plugins, "slow").seconds >= 0.3


def test_local_file(site: FakeSite, tmp_path: Path) -> None:
    """A single file is a plugin, and may register a class directly."""
    file = tmp_path / "my idea.py"
    file.write_text(
        "from strawberry.plugin import hookimpl\nclass Mine: ...\n"
        "@hookimpl\ndef strawberry_register(registry): registry.ffn('mine', Mine)\n",
        encoding="utf-8",
    )

    plugins = Plugins.load(files=[file])
    entry = plugins.registry.find("ffn", "mine")

    assert entry.full_name == "my idea/mine"
    assert entry.load().__name__ == "Mine"
    assert file == record(plugins, "my idea").file


def test_local_file_that_fails(site: FakeSite, tmp_path: Path) -> None:
    """A broken local file is a broken plugin, and leaves no half-made module behind."""
    file = tmp_path / "mine.py"
    file.write_text("1 / 0\n", encoding="utf-8")

    plugins = Plugins.load(files=[file])

    assert f"ZeroDivisionError: division by zero ({file}:1)" == record(plugins, "mine").error
    assert "strawberry_local_mine" not in sys.modules


def test_local_file_that_is_not_there(site: FakeSite, tmp_path: Path) -> None:
    """A local file that does not exist, or is no Python file, is an error at once."""
    with pytest.raises(PluginError, match="no such file"):
        Plugins.load(files=[tmp_path / "nope.py"])
    with pytest.raises(PluginError, match="not a Python file"):
        Plugins.load(files=[tmp_path])


def test_manifest_that_imports_torch_is_noted(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The author of a manifest that imports torch is told what that costs."""
    monkeypatch.setitem(sys.modules, "torch", sys)
    monkeypatch.delitem(sys.modules, "torch")
    site.install("good", "import sys; sys.modules['torch'] = sys\n" + GOOD)

    (note,) = record(Plugins.load(), "good").notes

    assert "torch" in note
