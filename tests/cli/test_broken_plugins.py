"""Broken plugins beside a good one, in a real environment: the rest works, and each is reported."""

from __future__ import annotations

import json
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.environments import environment, packages, short_run
from tests.plugin.fakes import write_distribution

RECIPES = Path(__file__).parents[2] / "recipes"
MANIFEST = """
from strawberry.plugin import hookimpl

@hookimpl
def strawberry_register(registry):
    registry.norm("{name}", "good_norm:Good")
"""
FAULTS = {
    "imports-nothing-there": ("import no_such_package", "No module named 'no_such_package'"),
    "has-bad-syntax": ("def f(:\n    pass", "SyntaxError"),
    "is-of-another-api": ("strawberry_api = '>=7'" + MANIFEST.format(name="future"), "API >=7"),
    "misspells-a-hook": (
        "from strawberry.plugin import hookimpl\n@hookimpl\ndef strawberry_step_don(step): ...",
        "unknown hook 'strawberry_step_don'; did you mean 'strawberry_step_done'?",
    ),
    "recurses": ("def f():\n    f()\nf()", "RecursionError"),
    "exits": ("raise SystemExit(3)", "SystemExit"),
    "raises-in-register": (
        "from strawberry.plugin import hookimpl\n"
        "@hookimpl\ndef strawberry_register(registry): registry.norm('a b', 'm:A')",
        "'a b'",
    ),
}
"""Manifests that can't be used, and what is said of each."""


@dataclass
class Place:
    """An environment, and running commands in it."""

    folder: Path
    env: dict[str, str]

    def install(self, name: str, manifest: str) -> None:
        """A distribution with a manifest, as an installer leaves it."""
        module = name.replace("-", "_")
        where = packages(self.folder / "environment")
        (where / f"{module}.py").write_text(textwrap.dedent(manifest))
        write_distribution(where, name, f"[strawberry]\n{name} = {module}\n")

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """A command, which must exit with that code."""
        done = subprocess.run(
            ["strawberry", *words], cwd=self.folder, env=self.env, text=True, timeout=300,
            capture_output=True, check=False, executable=self.folder / "environment/bin/strawberry",
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An environment with one plugin that works."""
    made = Place(tmp_path, environment(tmp_path / "environment"))
    made.install("good", MANIFEST.format(name="good"))
    where = packages(tmp_path / "environment")
    (where / "good_norm.py").write_text(
        "from strawberry.components.norm.rmsnorm import RMSNorm\nclass Good(RMSNorm): ...\n"
    )
    return made


@pytest.mark.faults(38)
def test_each_is_reported_and_the_rest_works(place: Place) -> None:
    """Every fault at once: listing, building and training go on, with a line for each plugin."""
    for name, (manifest, _) in FAULTS.items():
        place.install(name, manifest)
    for name in ("twin-a", "twin-b"):
        place.install(name, MANIFEST.format(name="twin"))

    records = json.loads(place.run("plugins", "--json").stdout)["plugins"]
    found = {record["name"]: record for record in records}
    for name, (_, said) in FAULTS.items():
        assert found[name]["status"] in ("broken", "incompatible")
        assert said in found[name]["error"] + found[name]["traceback"], name
    assert {found[name]["status"] for name in ("good", "strawberry", "twin-a", "twin-b")} == {"ok"}

    recipe = str(RECIPES / "gpt2.yaml")
    norms = ("model.norm=good", "model.stack.*.norm=twin-b/twin")
    sets = short_run(place.folder, *norms, "train.max_iters=2")
    trained = place.run("train", recipe, "--run-dir", "run", *sets)
    for name in FAULTS:
        assert trained.stderr.count(f"plugin '{name}'") == 1, name
    assert "Traceback" not in trained.stderr

    # A recipe that needs a broken one, or a name that two have, is an error that says so.
    wrong = ("--set", "model.norm=recurses/x", "--set", "model.stack.*.norm=twin")
    said = place.run("build", recipe, *wrong, code=2).stderr
    assert "plugin 'recurses' failed to load" in said
    assert "write twin-a/twin or twin-b/twin" in said


@pytest.mark.faults(39)
def test_a_hook_that_raises_is_named_and_can_be_left_out(place: Place) -> None:
    """The run stops with one line, and goes on without the plugin from its checkpoint."""
    place.install(
        "angry",
        "from strawberry.plugin import hookimpl\n"
        "@hookimpl\ndef strawberry_evaluated(run, step): raise KeyError('accuracy')",
    )
    more = ("train.max_iters=4", "train.eval_interval=3", "train.checkpoint_interval=2")
    words = ["train", str(RECIPES / "gpt2.yaml"), "--run-dir", "run"]
    words += short_run(place.folder, *more)
    failed = place.run(*words, code=2)
    assert "plugin 'angry': strawberry_evaluated raised KeyError: 'accuracy' (" in failed.stderr
    assert "Traceback" not in failed.stderr
    place.run(*words, "--resume", "--no-plugin", "angry")
    last = (place.folder / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["step"] == 4


@pytest.mark.faults(38)
@pytest.mark.parametrize("seconds", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_a_slow_import_is_named_and_can_be_left_out(place: Place, seconds: int) -> None:
    """After some seconds the plugin is named; without it nothing waits."""
    place.install("sleepy", f"import time\ntime.sleep({seconds})")
    waited = place.run("plugins", "--json")
    assert "waiting for plugin 'sleepy' to import" in waited.stderr
    assert "`--no-plugin sleepy` disables it" in waited.stderr
    records = json.loads(waited.stdout)["plugins"]
    assert {r["name"]: r["seconds"] >= seconds for r in records}["sleepy"]
    assert "waiting" not in place.run("components", "norm", "--no-plugin", "sleepy").stderr
