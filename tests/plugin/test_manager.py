"""The set of plugins: strictness, disabling, the environment, and the calls to hooks."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from strawberry.errors import PluginError
from strawberry.plugin import LookupFailure, Plugins
from tests.plugin.fakes import FakeSite, registers

GOOD = registers("registry.attention('good', 'good_parts:Good')")
RAISES = """
from strawberry.plugin import hookimpl

@hookimpl
def strawberry_step_done(step):
    raise {error}
"""


def names(plugins: Plugins, status: str) -> list[str]:
    """The plugins of that status."""
    return [record.name for record in plugins.records if record.status == status]


def test_builtins_come_first_and_through_our_entry_point(site: FakeSite) -> None:
    """The built-in components are registered by a plugin like any other."""
    plugins = Plugins.load()

    assert plugins.records[0].name == "strawberry"
    assert plugins.registry.find("attention", "mha").full_name == "strawberry/mha"
    assert plugins.warnings == []


def test_without_the_builtin(site: FakeSite) -> None:
    """Disabling the built-in leaves an empty toolkit that still answers."""
    plugins = Plugins.load(disabled=["strawberry"])

    assert plugins.registry.entries() == []
    with pytest.raises(LookupFailure, match="plugin 'strawberry' is disabled"):
        plugins.registry.find("attention", "mha")


def test_missing_builtin_is_said(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is on the path but not installed, one line says what to do."""
    real = importlib.metadata.entry_points
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: real(group="no-such-group"))

    (line,) = Plugins.load().warnings

    assert "built-in components are missing" in line
    assert "pip install" in line


def test_strict_mode_raises_all_failures(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """In strict mode every unusable plugin is named in one error."""
    site.install("one", "1 / 0")
    site.install("two", GOOD + "\nstrawberry_api = '>9'")

    with pytest.raises(PluginError, match=r"plugin 'one' \(one 1.0\) failed(.|\n)*plugin 'two'"):
        Plugins.load(strict=True)
    monkeypatch.setenv("STRAWBERRY_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError):
        Plugins.load()
    assert names(Plugins.load(strict=False), "broken") == ["one"]


def test_disabled_plugins_are_not_imported(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin is disabled by its name or its distribution's, and is not imported at all."""
    site.install("one-dist", "1 / 0", entry="one")
    site.install("two-dist", "1 / 0", entry="two")
    site.install("three", "1 / 0")
    monkeypatch.setenv("STRAWBERRY_DISABLE_PLUGINS", " three, ")

    plugins = Plugins.load(disabled=["one", "two-dist"])

    assert sorted(names(plugins, "disabled")) == ["one", "three", "two"]
    assert names(plugins, "broken") == []
    assert plugins.warnings == []


def test_disabling_all_keeps_the_builtin_and_local_files(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`all` stands for every installed plugin but our own."""
    site.install("one", "1 / 0")
    file = tmp_path / "mine.py"
    file.write_text(GOOD, encoding="utf-8")
    monkeypatch.setenv("STRAWBERRY_DISABLE_PLUGINS", "all")

    plugins = Plugins.load(files=[file])

    assert names(plugins, "disabled") == ["one"]
    assert names(plugins, "ok") == ["strawberry", "mine"]


def test_disabling_what_is_not_there(site: FakeSite) -> None:
    """A misspelt name to disable is said, with the near one."""
    site.install("hyena", GOOD)

    assert (Plugins.load(disabled=["hyenas"]).warnings) == [
        "unknown plugin 'hyenas'; did you mean 'hyena'?"
    ]


def test_strawberry_graphql_beside_us(site: FakeSite) -> None:
    """The other owner of the import package `strawberry` is named in one line."""
    site.install("strawberry-graphql", entry_points="", version="0.270.1")

    (line,) = Plugins.load().warnings

    assert line.startswith("strawberry-graphql 0.270.1 is installed in the same environment")


def test_hooks_are_called_with_what_they_ask_for(site: FakeSite, tmp_path: Path) -> None:
    """An implementation gets the arguments that it names and no others."""
    site.install(
        "seen",
        """
        from strawberry.plugin import hookimpl
        calls = []
        @hookimpl
        def strawberry_evaluated(metrics, step): calls.append((metrics, step))
        """,
    )
    plugins = Plugins.load()

    plugins.call("strawberry_evaluated", run=tmp_path, step=3, metrics={"val_loss": 1.0})
    plugins.hook.strawberry_evaluated(run=tmp_path, step=4, metrics={})

    import seen_manifest  # type: ignore[import-not-found]

    assert seen_manifest.calls == [({"val_loss": 1.0}, 3), ({}, 4)]


@pytest.mark.parametrize("error", ["ValueError('no')", "SystemExit(1)"])
def test_raising_hook_is_named_and_others_are_still_called(site: FakeSite, error: str) -> None:
    """A hook that raises names its plugin and its line, after all others were called."""
    site.install("a-bad", RAISES.format(error=error))
    site.install(
        "b-good", RAISES.format(error="Exception").replace("raise ", "calls.append(step) #")
    )
    site.module(
        "b_good_manifest", (site.folder / "b_good_manifest.py").read_text() + "calls = []\n"
    )
    site.install("c-bad", RAISES.format(error=error))
    plugins = Plugins.load()

    with pytest.raises(PluginError) as caught:
        plugins.call("strawberry_step_done", run=Path(), step=7, metrics={})

    import b_good_manifest  # type: ignore[import-not-found]

    kind = error.split("(", maxsplit=1)[0]
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"plugin 'c-bad': strawberry_step_done raised {kind}")
    assert second.startswith(f"plugin 'a-bad': strawberry_step_done raised {kind}")
    assert "a_bad_manifest.py:6" in second
    assert b_good_manifest.calls == [7]


def test_keyboard_interrupt_in_a_hook_passes(site: FakeSite) -> None:
    """Ctrl-C in a hook is Ctrl-C."""
    site.install("bad", RAISES.format(error="KeyboardInterrupt"))

    with pytest.raises(KeyboardInterrupt):
        Plugins.load().call("strawberry_step_done", run=Path(), step=1, metrics={})


def test_managers_are_independent(site: FakeSite) -> None:
    """Loading twice gives two sets that share no state."""
    site.install("hyena", GOOD)

    first, second = Plugins.load(), Plugins.load(disabled=["hyena"])

    assert first.records[1].status == "ok"
    assert second.records[1].status == "disabled"
