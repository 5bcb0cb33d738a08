"""What a person gets wrong in a plan, and what they are told: what, where, what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from strawberry.cli.app import run

PLAIN = "ablate: small.yaml\nvary: {ffn: [swiglu, geglu]}\n"
WRONG = {
    # the fifteen that ended in a traceback, were accepted, or were refused
    "alpha: abc": ":3:8: alpha: expected a number, got the text 'abc'",
    "effect: [1]": ":3:9: effect: expected a number, got [1]",
    "vary: 3": ":2:7: vary: expected a mapping of paths in the recipe, each with a list of",
    "vary: [a]": ":2:7: vary: expected a mapping of paths in the recipe, each with a list of",
    "set: [1]": ":3:6: set: expected a mapping of paths in the recipe, got [1]",
    "metric: 3": ":3:9: metric: expected a text, got 3",
    "halving: 7": ":3:10: halving: expected true or false, got 7",
    "flops: abc": ":3:8: flops: expected a number, got the text 'abc'",
    "width: 3": ":3:8: width: expected a text, got 3",
    "executor: 3": ":3:11: executor: expected a component name of kind executor",
    "cells: 3": ":3:8: cells: expected a mapping of names, each with a patch, got 3",
    "suite: 3": ":3:8: suite: expected a mapping from table names to recipe changes",
    "mode: gird": ":3:7: mode: expected one of grid, one_at_a_time, leave_one_out, paired, random,",
    "seeds: 0": ":3:8: seeds: expected a whole number of at least 1, or auto, got 0",
    "alpha: 2": ":3:8: alpha: expected less than 1, got 2",
    # keys
    "sedes: 3": ":3:1: a plan has no 'sedes'; did you mean 'seeds'?",
    "recipe: small.yaml": ":3:1: a plan has no 'recipe'",
    "model: {n_embd: 3}": ":3:1: a plan has no 'model'",
    "mode: grid\nmode: grid": ":4:1: duplicate key 'mode'; first on line 3",
    "match: param": "did you mean 'params'?",
    # the recipe
    "ablate: gone.yaml": ":1:9: ablate: no such file:",
    "ablate: 3": ":1:9: ablate: expected the path of a recipe, relative to this plan, got 3",
    "ablate: null": ":1:9: ablate: expected the path of a recipe",
    "ablate: plan.yaml": "plan.yaml:1:1: a recipe has no 'ablate'",
    # numbers
    "seeds: true": ":3:8: seeds: expected a whole number of at least 1, or auto, got true",
    "seeds: outo": ":3:8: seeds: expected a whole number of at least 1, or auto, got 'outo'",
    "samples: -1": ":3:10: samples: expected at least 1, got -1",
    "max_seeds: 2": ":3:12: max_seeds: expected at least 3, got 2",
    "tokens: 1.5": ":3:9: tokens: expected a whole number, got 1.5",
    "flops: -1": ":3:8: flops: expected more than 0, got -1",
    "flops: .inf": ":3:8: flops: expected a finite number, got inf",
    "last: null": ":3:7: last: expected a whole number, got null",
    "noise_ratio: 0.5": ":3:14: noise_ratio: expected at least 1, got 0.5",
    "tokens: 10\nflops: 1e9": ":4:1: flops: give a budget in tokens or in FLOPs, not both",
    # paths and their values
    "vary: {}": ":2:1: vary: nothing varies: give --vary PATH=VALUE,VALUE or --mode leave_one_out",
    "vary: {ffn: []}": ":2:13: vary.ffn: expected at least one value, got []",
    "vary: {ffn: [swiglu, geglu, swiglu]}": ":2:29: vary.ffn[2]: duplicate value 'swiglu'",
    "vary: {ffn: [swiglu, gegle]}": ":2:22: vary.ffn[1]: unknown ffn 'gegle'; did you mean",
    "vary: {ffn: [{use: swiglu, n_fnn: 3}]}": ":2:28: vary.ffn[0]: ffn 'swiglu' has no 'n_fnn'",
    "vary: {ffn: [swiglu], model.stack.*.ffn: [geglu]}": ":2:23: vary.model.stack.*.ffn: duplicate",
    "vary: {model.n_embdd: [8, 16]}": ":2:8: vary.model.n_embdd: the model has no 'n_embdd'",
    "vary: {modle.n_embd: [8, 16]}": ":2:8: vary.modle.n_embd: a recipe has no 'modle'; did you",
    "vary: {'a b': [8, 16]}": ":2:8: expected a path such as",
    "vary: {n_embd: {low: 8, high: 64}}": ":2:1: vary: model.n_embd: a range needs --mode random",
    "vary: {n_embd: {low: 64, high: 8}}": ":2:16: vary.n_embd: a range is `low` and `high`: two",
    "vary: {n_embd: {low: 64}}": ":2:16: vary.n_embd: a range is `low` and `high`: two numbers",
    "tune: {learning_rate: {low: a, high: b}}": ":3:23: tune.learning_rate: a range is `low` and",
    "cells: {wide: 3}": ":3:15: cells.wide: expected a mapping of paths in the recipe, got 3",
    "cells: {wide: null}": ":3:15: cells.wide: expected the changes of the cell, got null",
    "cells: {wide: {}}": ":3:15: cells.wide: expected the changes of the cell, got {}",
    "cells: {wide: {attention: mhaa}}": ":3:27: cells.wide.attention: unknown attention 'mhaa'",
    "cells: {wide: {trian.max_iters: 3}}": ":3:16: cells.wide.trian.max_iters: a recipe has no",
    "set: {train.max_iter: 3}": ":3:7: set.train.max_iter: train has no 'max_iter'; did you mean",
    "set: {train.max_iters: x}": ":3:24: train.max_iters: expected a whole number, got the text",
    "vary_seed: [init, dat]": ":3:12: vary_seed: expected some of init, data, dropout, got 'dat'",
    "vary_seed: 3": ":3:12: vary_seed: expected some of init, data, dropout, got 3",
    "width: a b": ":3:8: expected a path such as",
    "executor: {use: local, job: 2}": ":3:24: executor: executor 'local' has no 'job'; did you",
    # suites
    "suite: {}": ":3:8: suite: expected a mapping from table names to recipe changes",
    "suite: {a: 3}": ":3:12: suite.a: expected a mapping of paths in the recipe, got 3",
    "suite: {a/b: {}}": ":3:9: suite: a table's name must be a folder name, without / and without",
    "suite: {a: {ablate: x.yaml}}": ":3:13: suite.a.ablate: a recipe has no 'ablate'",
    "suite: {a: {model.n_embd: x}}": ":3:27: model.n_embd: expected a whole number, got the text",
}


@pytest.mark.parametrize("lines", WRONG)
def test_wrong_plan(
    lines: str, recipe_file: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each is refused with its place, exit code 2, nothing printed and nothing written."""
    key = lines.partition(":")[0]
    kept = [line for line in PLAIN.splitlines() if not line.startswith(f"{key}:")]
    kept.insert(("ablate", "vary").index(key) if key in ("ablate", "vary") else 2, lines)
    path = recipe_file.with_name("plan.yaml")
    path.write_text("\n".join(kept) + "\n")
    monkeypatch.chdir(recipe_file.parent)

    code = run(["--no-plugin", "fla", "ablate", str(path)])

    captured = capsys.readouterr()
    assert code == 2
    assert WRONG[lines] in captured.err
    assert str(path) in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(file.name for file in recipe_file.parent.iterdir()) == [
        "plan.yaml", "small.yaml", "text.txt",
    ]  # fmt: skip


def test_all_that_is_wrong_is_told_at_once(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the file."""
    path = recipe_file.with_name("plan.yaml")
    path.write_text("ablate: small.yaml\nvary: 3\nalpha: x\nseeds: x\ncells: []\n")
    assert run(["--no-plugin", "fla", "ablate", str(path)]) == 2
    places = [line.split(": ")[0].split(":")[-2:] for line in capsys.readouterr().err.splitlines()]
    assert [place for place in places if place[0].isdecimal()] == [
        ["2", "7"], ["3", "8"], ["4", "8"], ["5", "8"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("vary: {ffn: [swiglu]}\n", ":1:1: `ablate:` is missing; give the path of the recipe"),
        ("- 3\n", ":1:1: a recipe must be a mapping"),
        ("3\n", ":1:1: a recipe must be a mapping"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_no_plan(
    content: str, message: str, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One without its recipe, or of another form."""
    path = recipe_file.with_name("plan.yaml")
    path.write_text(content)
    assert run(["--no-plugin", "fla", "ablate", str(path), "--vary", "ffn=swiglu,geglu"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "gird"], "--mode gird:1:1: mode: expected one of grid"),
        (["--seeds", "x"], "--seeds x:1:1: seeds: expected a whole number of at least 1, or auto"),
        (["--executor", "loca"], "executor: unknown executor 'loca'; did you mean 'local'?"),
        (["--vary-seed", "dat"], "--vary-seed dat:1:1: vary_seed: expected some of init, data"),
    ],
)
def test_wrong_options(
    options: list[str], message: str, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same rules, located on the command line."""
    words = ["ablate", str(recipe_file), "--vary", "ffn=swiglu,geglu", *options]
    assert run(["--no-plugin", "fla", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
