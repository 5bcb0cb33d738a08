"""The walk over a recipe: everything in it, once, and where it stands."""

from __future__ import annotations

from strawberry.recipe.spec import BlockSpec, ComponentSpec
from strawberry.recipe.walk import blocks, specs, walk
from tests.recipe.conftest import Load

TEXT = """\
model:
  vocab_size: 8
  block_size: 8
  n_embd: 8
  stack:
    - repeat: 2
      stack:
        - recur: 3
          router: token_choice
          attention: {use: mha, n_head: 2}
        - ffn: {use: moe, n_ffn: 8}
    - attention: {use: mha, n_head: 2}
      norm: layernorm
data: {use: synthetic, task: memorization}
optimizer: [{use: muon, params: matrix}, adamw]
"""


def test_everything_is_met_once_at_its_place(load: Load) -> None:
    """Nodes, their components, and components within components, each after what it stands in."""
    steps = list(walk(load(TEXT)))
    paths = [step.path for step in steps]
    twice = [path for path in paths if paths.count(path) > 1]
    assert twice == ["model.stack[0].stack[0]"] * 2  # a recur and its one block are one entry
    assert {
        "model.stack[0].stack[0].router",
        "model.stack[1].norm",
        "data",
        "data.task",
        "optimizer[0].rest",
        "optimizer[1]",
    } <= set(paths)
    for step in steps:
        if isinstance(step.spec, ComponentSpec) and step.spec.at.location is not None:
            assert step.path == (step.spec.at.path or step.path)
        if step.parent is not None:
            assert paths.index(step.parent.path) <= paths.index(step.path)
            assert step.path.startswith(step.parent.path)


def test_copies_and_uses(load: Load) -> None:
    """Repeats multiply what there is; recursions only how often it is used."""
    found = {s.path: (s.copies, s.uses) for s in walk(load(TEXT)) if isinstance(s.spec, BlockSpec)}
    assert list(found.values()) == [(2, 6), (2, 2), (1, 1)]


def test_parts_of_a_recipe(load: Load) -> None:
    """The blocks alone, or the components of some sections."""
    recipe = load(TEXT)
    assert [block.ffn is not None for block in blocks(recipe.model.stack)] == [False, True, False]
    assert {spec.kind for spec in specs(recipe, "data", "optimizer")} == {
        "data", "task", "optimizer",
    }  # fmt: skip
