import pytest
import torch

import strawberry
from strawberry.errors import RecipeError
from strawberry.model.stack import recursion
from tests.support import tiny


@pytest.mark.parametrize(
    ("sharing", "order"),
    [
        ("cycle", "a b c d a b c d"),
        ("sequence", "a a b b c c d d"),
        ("middle_cycle", "a b c b c d"),
        ("middle_sequence", "a b b c c d"),
    ],
)
def test_sharing_patterns(sharing, order):
    """The four patterns of the paper's table, for four nodes and two steps."""
    uses = recursion(4, 2, sharing)

    assert " ".join("abcd"[index] for index, _ in uses) == order


def test_middle_sharing_needs_a_middle():
    """Two nodes have no middle to share."""
    with pytest.raises(ValueError, match="at least 3"):
        recursion(2, 2, "middle_cycle")


def test_nested_nodes_unroll():
    """Repeat inside recur inside repeat: fresh weights outside, shared weights inside."""
    inner = {"recur": 3, "stack": [{"repeat": 2, "attention": "mha"}, {"attention": "aft_simple"}]}
    model = strawberry.build(tiny({"repeat": 2, "stack": [inner]}, {"ffn": "swiglu"}))
    visits = model.visits()

    assert len(visits) == 2 * 3 * 3 + 1
    assert len({id(v.block) for v in visits}) == 2 * 3 + 1
    assert [v.steps for v in visits[:4]] == [(0,), (0,), (0,), (1,)]
    assert len(model.new_cache(1, 4).states) == len(visits)


def test_recur_is_the_same_block_twice():
    """`recur: 2` over one block equals calling that block twice by hand."""
    model = strawberry.build(tiny({"recur": 2, "attention": "mha", "ffn": "mlp"}))
    idx = torch.arange(8)[None]
    block = model.visits()[0].block
    from strawberry.contracts import Use

    use = Use(torch.arange(8), 0, model.positional, model.weights)
    with torch.no_grad():
        x = model.embed(idx, model.use(idx))
        expected = model.norm(block(block(x, use, 0)[0], use, 1)[0])

        torch.testing.assert_close(model.trunk(idx)[0], expected)


def test_blocks_without_an_ffn_or_attention():
    """Either part of a block may be absent."""
    model = strawberry.build(tiny({"attention": "mha"}, {"ffn": "mlp", "attention": "none"}))
    first, second = (visit.block for visit in model.visits())

    assert first.ffn is None
    assert second.attention is None


def test_all_problems_at_once():
    """Every component that refuses its fields is reported, each at its own place."""
    recipe = tiny(
        {"attention": {"use": "mha", "n_head": 3}},
        {"repeat": 4, "attention": {"use": "mha", "n_head": 4, "n_kv_head": 3}},
        {"ffn": {"use": "mlp", "n_ffn": 0}},
    )
    with pytest.raises(RecipeError) as caught:
        strawberry.build(recipe, device="meta")

    paths = [problem.path for problem in caught.value.problems]
    assert len(paths) == 3
    assert "stack[0].attention" in paths[0]
    assert "n_kv_head" in str(caught.value.problems[1])


def test_ignored_positions_are_refused():
    """Rotation where nothing can rotate is refused, in the model and in a block."""
    with pytest.raises(RecipeError, match="no attention of the stack uses 'rope'"):
        strawberry.build(tiny({"attention": "aft_simple"}, positional="rope"))
    with pytest.raises(RecipeError, match="would ignore 'rope'"):
        strawberry.build(tiny({"attention": "aft_simple", "positional": "rope"}, positional="none"))
    with pytest.raises(RecipeError, match=r"write it under model\.positional"):
        strawberry.build(tiny({"attention": "mha", "positional": "learned"}, positional="none"))


def test_a_block_can_go_without_positions():
    """`positional: none` in one block leaves the others rotated."""
    rotated = {"attention": "mha"}
    plain = {"attention": "mha", "positional": "none"}
    idx = torch.arange(8)[None]
    outputs = []
    for entry in (rotated, plain):
        model = strawberry.build(tiny(rotated, entry, positional="rope"))
        with torch.no_grad():
            outputs.append(model(idx))

    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
