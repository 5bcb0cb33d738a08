"""The sections of a recipe, one by one."""

from __future__ import annotations

import pytest

from strawberry.recipe.spec import BlockSpec, RepeatSpec
from tests.recipe.conftest import BASE, Load, Wrong


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a/b\n", "8:7: name: expected a name of at most 100 characters, without / or \\, "
         "got 'a/b'"),
        ("name: ..\n", "8:7: name: expected a name of at most 100 characters, without / or \\, "
         "got '..'"),
        ("seed: -1\n", "9:7: seed: expected a whole number of at least 0, or auto, got -1"),
        ("seed: 1.5\n", "9:7: seed: expected a whole number of at least 0, or auto, got 1.5"),
        ("seed: true\n", "9:7: seed: expected a whole number of at least 0, or auto, got true"),
        ("requires: [no-such-distribution>=2]\n", "9:12: requires[0]: no-such-distribution is not "
         "installed: pip install 'no-such-distribution>=2'"),
        ("requires: [pytest<1]\n", "9:12: requires[0]: needs pytest<1; "),
        ("requires: [3]\n", "9:12: requires[0]: expected a requirement such as "
         "strawberry-silia>=0.1, got 3"),
        ("requires: pytest\n", "9:11: requires: expected a list, got 'pytest'"),
        ("train: 3\n", "9:8: train: a section must be a mapping, got 3"),
        ("train: {max_iters: 0}\n", "9:20: train.max_iters: expected at least 1, got 0"),
        ("train: {compile: maybe}\n",
         "9:18: train.compile: expected one of auto, blocks, or true or false, "
         "got the text 'maybe'"),
        ("train: {dtype: bfloat}\n", "9:16: train.dtype: expected one of auto, float32, bfloat16, "
         "got the text 'bfloat'; did you mean 'bfloat16'?"),
        ("train: {learning_rate: .nan}\n",
         "9:24: train.learning_rate: expected a finite number, got nan"),
        ("optimizer: []\n", "9:12: optimizer: no optimizer is given"),
        ("optimizer: [{use: adamw, params: 3}]\n",
         "9:34: optimizer[0].params: expected a kind or a pattern"),
        ("optimizer: {use: adamw, betas: [0.9]}\n",
         "9:32: optimizer.betas: expected a list of 2, got [0.9]"),
        ("optimizer: {use: adamw, betas: [0.9, 0.9, 0.9]}\n",
         "9:32: optimizer.betas: expected a list of at most 2, got [0.9, 0.9, 0.9]"),
        ("extnds: a.yaml\n", "9:1: a recipe has no 'extnds'; did you mean 'extends'?"),
    ],
)  # fmt: skip
def test_wrong_sections(text: str, line: str, wrong: Wrong) -> None:
    """Each slip is one line at its place."""
    base = BASE.replace("name: test\n", "") if text.startswith("name") else BASE

    (found,) = wrong(base + text)

    assert found.startswith(f"r.yaml:{line}")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("mha", "6:7: model.stack[0]: a stack's entry must be a mapping, got 'mha'"),
        ("{norm: rmsnorm}", "6:7: model.stack[0]: a block needs `attention:` or `ffn:`"),
        ("{repeat: 2}", "6:7: model.stack[0]: a block needs `attention:` or `ffn:`"),
        ("{repeat: 2, recur: 2, ffn: mlp}",
         "6:26: model.stack[0].recur: `repeat` and `recur` exclude each other; "
         "nest one in the other"),
        ("{repeat: 2, sharing: cycle, ffn: mlp}",
         "6:28: model.stack[0].sharing: needs a `recur`; nothing recurs here"),
        ("{recur: 2, sharing: cylce, ffn: mlp}",
         "6:27: model.stack[0].sharing: expected one of cycle, sequence, middle_cycle, "
         "middle_sequence, got the text 'cylce'; did you mean 'cycle'?"),
        ("{recur: true, ffn: mlp}",
         "6:15: model.stack[0].recur: expected a whole number from 1 to 10000, got true"),
        ("{repeat: [2], ffn: mlp}",
         "6:16: model.stack[0].repeat: expected a whole number from 1 to 10000, got [2]"),
        ("{repeat: 2, ffn: mlp, stack: [{ffn: mlp}]}",
         "6:24: model.stack[0].ffn: `ffn` belongs in a block of the inner `stack`"),
        ("{recur: 2, stack: []}",
         "6:25: model.stack[0].stack: a stack must be a list of at least one block"),
        ("{attn: mha, ffn: mlp}",
         "6:8: model.stack[0]: a stack's entry has no 'attn'"),
        ("{ffn: {n_ffn: 3}}", "6:13: model.stack[0].ffn: expected a component name of kind "
         "ffn, or `use:` and its fields"),
        ("{recur: 10000, stack: [{repeat: 100, ffn: mlp}]}",
         "6:7: model.stack[0]: makes 100 blocks with 1000000 uses; the limits are 10000 blocks and "
         "100000 uses"),
    ],
)  # fmt: skip
def test_wrong_stacks(entry: str, line: str, wrong: Wrong) -> None:
    """Each slip in a stack is one line at its place."""
    head = BASE.replace("name: test\n", "").split("    - ")[0]

    (found,) = wrong(f"{head}    - {entry}\n")

    assert found.startswith(f"r.yaml:{line}")


def test_empty_sections_take_their_defaults(load: Load) -> None:
    """A section that is written but empty is as if it were absent."""
    text = BASE.replace("name: test\n", "")
    keys = ("name", "seed", "requires", "data", "tokenizer", "optimizer", "schedule", "train")

    recipe = load(text + "".join(f"{key}:\n" for key in (*keys, "trackers")))

    assert recipe == load(text)
    assert recipe.data.use == "strawberry/stdlib"
    assert recipe.seed == 1337


def test_seed_auto(load: Load) -> None:
    """`auto` draws a seed, which is noted and kept in the resolved recipe."""
    recipe = load(BASE + "seed: auto\n")

    assert recipe.notes == (f"seed: auto drew {recipe.seed}",)
    assert recipe.to_dict()["seed"] == recipe.seed


def test_block_without_parts(load: Load) -> None:
    """A block whose parts are all `none` is kept, for ablations, and survives a round trip."""
    recipe = load(BASE, ["model.stack.*.attention=none", "model.stack.*.ffn=none"])

    assert recipe.model.stack == (BlockSpec(),)
    assert load(recipe.to_yaml()) == recipe


def test_a_group_is_a_repeat_of_one(load: Load) -> None:
    """A bare inner `stack` opens a scope for a weight source."""
    recipe = load(
        BASE.split("    - ")[0] + "    - weights: {use: factorized, rank: 4}\n"
        "      stack: [{ffn: mlp}]\n"
    )

    (node,) = recipe.model.stack
    assert isinstance(node, RepeatSpec)
    assert node.count == 1
    assert node.weights is not None
    assert node.weights.fields["rank"] == 4


def test_places_are_kept_for_later_refusals(load: Load) -> None:
    """A problem is located at the field if it was written, else at the component."""
    recipe = load(BASE + "optimizer: [{use: muon, params: matrix}, adamw]\n")

    block = recipe.model.stack[0]
    assert isinstance(block, BlockSpec)
    assert block.attention is not None
    assert str(block.attention.problem("n_head", "m")) == (
        "r.yaml:7:37: model.stack[0].attention.n_head: m"
    )
    assert str(block.attention.problem("qk_norm", "m")) == (
        "r.yaml:7:18: model.stack[0].attention.qk_norm: m"
    )
    assert str(block.attention.problem("", "m")) == "r.yaml:7:18: model.stack[0].attention: m"
    assert str(recipe.model.at.problem("n_embd", "m")) == "r.yaml:5:11: model.n_embd: m"
    assert str(recipe.optimizer[0].component.problem("params", "m")) == (
        "r.yaml:9:33: optimizer[0].params: m"
    )
