"""`strawberry plugins` answers whatever the plugins do."""

from __future__ import annotations

import json
import re

import pytest

from strawberry.cli.app import run
from tests.plugin.fakes import FakeSite, registers


@pytest.fixture
def mixed(site: FakeSite) -> FakeSite:
    """A good, a broken, an incompatible and a disabled plugin."""
    site.install("good", registers("registry.router('topk', 'm:T')") + "\nstrawberry_api = '<2'")
    site.install("bad", "\nimport no_such_package  # [red]")
    site.install("old", "", requires=("strawberry-lab<0.0.1",))
    site.install("off", "1 / 0")
    return site


def test_text(mixed: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """Each plugin has its distribution, status, file and components; errors are in full."""
    assert run(["plugins", "--no-plugin", "off"]) == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert "good  good 1.0  ok  API <2" in out
    assert "  router  topk\n" in out
    assert "old  old 1.0  incompatible" in out
    assert "needs strawberry-lab<0.0.1" in out
    assert "off  off 1.0  disabled" in out
    assert f'File "{mixed.folder / "bad_manifest.py"}", line 2' in out
    assert "    import no_such_package  # [red]\n" in out
    assert re.search(r"attention   .*expert_abundance,[^:]* mha", out)


def test_json(mixed: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as data."""
    assert run(["plugins", "--json", "--no-plugin", "off"]) == 0

    found = json.loads(capsys.readouterr().out)
    records = {record["name"]: record for record in found["plugins"]}
    assert {name: record["status"] for name, record in records.items()} == {
        "strawberry": "ok", "bad": "broken", "good": "ok", "off": "disabled", "old": "incompatible",
    }  # fmt: skip
    assert records["good"]["components"] == [{"kind": "router", "name": "topk", "target": "m:T"}]
    assert records["good"]["api"] == "<2"
    assert records["good"]["seconds"] > 0
    assert "ModuleNotFoundError" in records["bad"]["traceback"]
    assert records["bad"]["file"] == str(mixed.folder / "bad_manifest.py")
    assert len(found["warnings"]) == 2


def test_environment_notes(site: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """Doubts about the environment are shown beside the plugins."""
    site.install("strawberry-graphql", entry_points="")

    assert run(["plugins"]) == 0
    assert "note: strawberry-graphql 1.0 is installed" in capsys.readouterr().out


def test_no_plugins(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An environment without any entry point still gets an answer."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])

    assert run(["plugins"]) == 0
    assert "no plugins" in capsys.readouterr().out
