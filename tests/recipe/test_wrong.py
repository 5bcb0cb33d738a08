"""What a person gets wrong in a recipe, and what they are told: one or two lines, and where."""

import time

import pytest

from strawberry.cli.app import run
from strawberry.errors import RecipeError
from strawberry.recipe import load_recipe

GOOD = """\
model:
  vocab_size: 61
  block_size: 16
  n_embd: 16
  stack:
    - attention: {use: mha, n_head: 4}
"""


def bomb(levels):
    """A list of aliases to a list of aliases, ten of each: 10^levels values when expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


WRONG = {
    "misspelt key": (
        GOOD.replace("n_embd", "n_embed"),
        ":4:3: model: the model has no 'n_embed'; did you mean 'n_embd'?",
    ),
    "misspelt field": (
        GOOD.replace("n_head", "n_heads"),
        ":6:29: model.stack[0].attention: attention 'mha' has no 'n_heads'; did you mean 'n_head'?",
    ),
    "wrong type": (
        GOOD.replace("block_size: 16", "block_size: sixteen"),
        ":3:15: model.block_size: expected a whole number, got the text 'sixteen'",
    ),
    "unknown component": (
        GOOD.replace("mha", "mhaa"),
        ":6:24: model.stack[0].attention: unknown attention 'mhaa'; did you mean 'mha'?",
    ),
    "heads that don't divide": (
        GOOD.replace("n_head: 4", "n_head: 3"),
        ":6:37: model.stack[0].attention.n_head: width 16 can't be split into 3 heads",
    ),
    "recursion of 0": (
        GOOD.replace("- attention", "- recur: 0\n      attention"),
        ":6:14: model.stack[0].recur: expected a whole number from 1 to 10000, got 0",
    ),
    "extends itself": ("extends: recipe.yaml\n" + GOOD, ":1:10: extends: extends itself"),
    "tabs": (GOOD.replace("  n_embd", "\tn_embd"), ":4:1: a tab can't indent YAML; use spaces"),
    "alias bomb": (bomb(10), "contains more than 10000 values, with aliases expanded"),
    "merge bomb": ("a: &a {x: 1}\nb: {<<: *a}\n", ":2:5: merge keys (<<) are refused"),
    "binary": (b"\x7fELF\x02\x01\0\0\0", "recipe.yaml:1:7: is not text"),
    "empty": ("", "recipe.yaml:1:1: is empty; a recipe needs at least `model:`"),
    "only a comment": ("# nothing\n", "is empty"),
    "utf-16": ("model: 1".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "not utf-8": (b"name: caf\xe9\n", "recipe.yaml:1:10: is not UTF-8 text"),
    "duplicate key": (GOOD + "model: 1\n", ":7:1: duplicate key 'model'; first on line 1"),
    "octal": (GOOD.replace("61", "061"), "061 starts with 0; write 61, or '061' for text"),
    "a tag": (GOOD + "name: !!python/object:os.system x\n", "are refused"),
    "an alias inside itself": ("a: &a [*a]\n", "an alias contains itself"),
    "deep": ("a: " + "[" * 500 + "]" * 500, "nested deeper than 60"),
    "a long number": (GOOD.replace("61", "9" * 100_000), "a number of 100000 digits"),
    "a boolean for a number": (GOOD.replace("61", "true"), "expected a whole number, got true"),
    "below a bound": (GOOD.replace("61", "0"), "expected at least 1, got 0"),
    "no stack": (GOOD.split("  stack", maxsplit=1)[0], ":2:3: model: `stack:` is missing"),
    "no model": ("name: x\n", "`model:` is missing"),
    "a list": ("- a\n", "a recipe must be a mapping"),
    "an empty block": (GOOD + "    - {}\n", "a block needs `attention:` or `ffn:`"),
    "repeat and recur": (
        GOOD.replace("- attention", "- repeat: 2\n      recur: 2\n      attention"),
        "`repeat` and `recur` exclude each other; nest one in the other",
    ),
    "sharing without recur": (
        GOOD.replace("- attention", "- sharing: cycle\n      attention"),
        "needs a `recur`",
    ),
    "unknown sharing": (
        GOOD.replace("- attention", "- recur: 2\n      sharing: cycel\n      attention"),
        "got the text 'cycel'; did you mean 'cycle'?",
    ),
    "a choice": (
        GOOD.replace("  stack", "  parametrization: {init: fan_out}\n  stack"),
        "did you mean 'fan_in'?",
    ),
    "missing distribution": (GOOD + "requires: [no-such-thing>=2]\n", "pip install"),
    "a nested component": (
        GOOD + "optimizer: {use: muon, rest: {use: adamw, betaz: [0.9, 0.9]}}\n",
        "optimizer.rest: optimizer 'adamw' has no 'betaz'; did you mean 'betas'?",
    ),
    "inside a list": (
        GOOD + "optimizer: {use: adamw, betas: [0.9, 2]}\n",
        ":7:38: optimizer.betas[1]: expected less than 1, got 2",
    ),
    "nobody's parameters": (
        GOOD + "optimizer: [{use: adamw, params: bank}, adamw]\n",
        "no parameters left for 'bank'; kinds here: embedding, matrix, vector",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_recipe(name, tmp_path, capsys):
    """Each is refused quickly, in at most two lines with a place, with exit code 2."""
    content, expected = WRONG[name]
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.process_time()

    code = run(["build", str(path)])

    captured = capsys.readouterr()
    assert code == 2
    assert expected in captured.err
    assert "Traceback" not in captured.err
    assert str(path) in captured.err
    assert 1 <= len(captured.err.strip().splitlines()) <= 2
    assert time.process_time() - began < 20


def test_all_errors_at_once(tmp_path):
    """Mistakes in several sections are reported together, in the order of the file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        GOOD.replace("16", "x", 1).replace("mha", "nha") + "train: {max_iters: -1, batch: 2}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)

    lines = [problem.location.line for problem in caught.value.problems]
    assert len(lines) == 4
    assert lines == sorted(lines)


def test_no_such_file(capsys):
    """A path that leads nowhere is one line."""
    assert run(["build", "nowhere.yaml"]) == 2
    assert "nowhere.yaml: there is no such file, and no packaged recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.n_embed=3", "has no 'n_embed'; did you mean 'n_embd'?"),
        ("model.stack[5].ffn=mlp", "index [5] is out of range: the list has 1 entries"),
        ("model", "an override must be path=value"),
        ("model.n_embd.x=3", "nothing at 'x'"),
        ("a b=3", "expected a path"),
        ("model.n_embd=[", "--set model.n_embd=["),
    ],
)
def test_wrong_override(tmp_path, override, expected):
    """A mistake on the command line is located there."""
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [override])

    assert expected in str(caught.value)
    assert "--set" in str(caught.value)
