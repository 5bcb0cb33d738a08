"""Section D: recipes that attack. Bombs and odd scalars are in tests/recipe, with their marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from strawberry.cli.app import run as command
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe, yaml as yaml_module
from tests.faults.conftest import Figure
from tests.recipe import test_fuzz as fuzz
from tests.recipe.conftest import folder, plugins
from tests.recipe.test_fuzz import extended
from tests.recipe.test_hostile import ALIASES

__all__ = ["extended", "folder", "plugins"]

CODE = [
    "data: !!python/object/apply:os.system ['touch canary']",
    "data: !!python/object/new:subprocess.Popen [['touch', 'canary']]",
    "data: {use: text, path: !!python/name:os.system }",
    "data: {_target_: os.system, command: touch canary}",
    "data: {use: text, path: '${oc.env:HOME}$(touch canary)`touch canary`'}",
    "data: {use: 'os:system'}",
    "data: {use: text, path: '{{ cycler.__init__.__globals__.os.system(\"touch canary\") }}'}",
    "tokenizer: {use: bpe, pattern: '(?{ touch canary })'}",
    "requires: ['evil @ file:///tmp/evil']",
    "trackers: ['builtins:exec']",
]


@pytest.mark.faults(34)
def test_no_text_of_a_recipe_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Tags, targets and templates are refused, or are the text of a path that is not there."""
    monkeypatch.chdir(tmp_path)
    refused = 0
    for number, line in enumerate(CODE):
        path = Path(f"r{number}.yaml")
        path.write_text(
            "model: {vocab_size: 300, block_size: 16, n_embd: 16, stack: [{attention: mha}]}\n"
            f"train: {{max_iters: 1}}\n{line}\n"
        )
        refused += command(["train", str(path), "--run-dir", "run"]) == 2
        assert "Traceback" not in capsys.readouterr().err
        assert not Path("run").exists()
    assert not list(tmp_path.rglob("canary"))
    figure(len(CODE), refused, "refused", executed=0)


@pytest.mark.faults(34, control=True)
def test_a_loader_of_objects_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them leaves its mark where a file is loaded without care."""
    import yaml

    monkeypatch.chdir(tmp_path)
    yaml.unsafe_load(CODE[0])
    assert Path("canary").exists()


@pytest.mark.faults(33, control=True)
def test_without_a_budget_a_bomb_is_not_noticed(
    folder: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no limit on values, what refuses the bomb is only that its keys are none of a recipe."""
    Path("bomb.yaml").write_text(ALIASES)
    with pytest.raises(RecipeError, match="aliases expanded"):
        load_recipe("bomb.yaml", plugins=plugins)
    monkeypatch.setattr(yaml_module, "MAX_NODES", 10**12)
    with pytest.raises(RecipeError) as caught:
        load_recipe("bomb.yaml", plugins=plugins)
    assert "aliases expanded" not in str(caught.value)


EDGES: list[tuple[str, Any]] = [
    ("train.learning_rate=1e-4", 1e-4), ("train.learning_rate=.5", 0.5), ("name=no", "no"),
    ("name=1:30", "1:30"), ("name='012'", "012"), ("train.max_iters=0x10", None),
    ("train.max_iters=1e3", None), ("train.max_iters=yes", None), ("train.compile=yes", None),
    ("train.min_lr=.inf", None), ("train.min_lr=.nan", None), ("train.max_iters=012", None),
    ("train.max_itres=3", None), ("train.on_nonfinite=skipp", None),
]  # fmt: skip


@pytest.mark.faults(35)
def test_scalars_mean_what_they_look_like(figure: Figure, tmp_path: Path, plugins: Plugins) -> None:
    """Each has its value, or is refused at its place with what is expected there."""
    path = tmp_path / "r.yaml"
    path.write_text(
        "model: {vocab_size: 300, block_size: 16, n_embd: 16, stack: [{attention: mha}]}\n"
    )
    right = 0
    for text, expected in EDGES:
        key = text.split("=")[0]
        if expected is None:
            with pytest.raises(RecipeError, match=key.rsplit(".", 1)[-1][:8]) as caught:
                load_recipe(path, [text], plugins=plugins)
            right += caught.value.problems[0].location is not None
            continue
        found = load_recipe(path, [text], plugins=plugins).to_dict()
        for step in key.split("."):
            found = found[step]
        right += found == expected
    figure(len(EDGES), right, "as they look or refused")


MANY = settings(
    max_examples=5000, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.faults(32)
@pytest.mark.parametrize("kind", list(fuzz.STRATEGIES))
def test_twenty_thousand_random_recipes(
    kind: str, folder: Path, plugins: Plugins, figure: Figure
) -> None:
    """Five thousand of each kind: built, or refused with a place; never a traceback, nor slow."""
    test = getattr(fuzz, f"test_{kind}")
    cases: list[fuzz.Attempt] = []

    def timed(*arguments: Any) -> None:
        name = "fuzz.json" if len(cases) % 5 == 4 else "fuzz.yaml"
        cases.append(fuzz.attempt(name, *arguments))

    for text in fuzz.TEXTS:  # so that no case has to import a component's module
        fuzz.attempt("fuzz.yaml", text.encode(), plugins)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "check", timed)
        trial = MANY(given(**fuzz.STRATEGIES[kind])(test.hypothesis.inner_test))
        trial(folder=folder, plugins=plugins)
    times = sorted(1000 * case.seconds for case in cases)
    figure(
        len(cases), len(cases), kind, built=sum(case.built for case in cases), tracebacks=0,
        **{"p99 ms": round(times[len(times) * 99 // 100]), "most ms": round(times[-1])},
    )  # fmt: skip


@pytest.mark.faults(32, control=True)
def test_a_traceback_would_be_noticed(
    folder: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader with a bug in it fails the check that the random recipes go through."""

    def broken(*arguments: Any) -> Any:
        raise KeyError("bug")

    monkeypatch.setattr("strawberry.recipe.load.validate", broken)
    with pytest.raises(KeyError):
        fuzz.check(json.dumps({"model": {}}).encode(), plugins)
