"""Silia against the author's own numbers, and against its definition as loops."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError

HERE = Path(__file__).parent
EPS = 1.1920929e-07
AUTHOR = {
    "vocab_size": 96,
    "block_size": 24,
    "n_embd": 32,
    "embedding_norm": True,
    "norm": {"use": "rmsnorm", "gain": False, "eps": EPS},
    "positional": {"use": "rope", "sign": -1},
    "residual": "attention",
    "stack": [
        {
            "repeat": 3,
            "attention": {"use": "silia", "n_head": 4, "sees_itself": False, "qk_eps": EPS},
        }
    ],
}
PARTS = {"first": "attn1", "second": "attn2"}
NAMES = {
    "qkvg.weight": "qkvg.weight",
    "out.weight": "out.weight",
    "temperature": "tao",
    "sink": "sink",
}


def build(folder, model):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"model": model}))
    return strawberry.build(strawberry.load_recipe(path))


def author_names(model):
    """(our parameter, the author's name of it) for every parameter of ours."""
    ours = dict(model.named_parameters())
    yield ours.pop("embedding.weight"), "embed.weight"
    for block in range(3):
        here = f"stack.nodes.{block}."
        yield ours.pop(here + "attention_join.query"), f"blocks.{block}.residual.q"
        for part, its in PARTS.items():
            for name, their in NAMES.items():
                theirs = f"blocks.{block}.silia.{its}.{their}"
                yield ours.pop(f"{here}attention.{part}.{name}"), theirs
    assert not ours


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 2e-5)], ids=str
)
def test_the_authors_numbers(tmp_path, dtype, tolerance):
    """From the author's weights: the author's logits, loss and gradients.

    In float64 what is left is the rounding of those numbers; float32 adds as much of ours.
    """
    golden = load_file(HERE / "silia_eca6b48.safetensors")
    model = build(tmp_path, AUTHOR).to(dtype)
    with torch.no_grad():
        for parameter, name in author_names(model):
            parameter.copy_(golden[f"param/{name}"].view_as(parameter))

    logits = model(golden["idx"])
    loss = model.loss(golden["idx"], golden["targets"])
    loss.total.backward()

    def off(ours, theirs):
        return (ours.double() - theirs.double()).abs().max() / theirs.abs().max().clamp(min=1)

    assert off(logits, golden["logits"]) < tolerance
    assert off(loss.total, golden["loss"]) < tolerance
    for parameter, name in author_names(model):
        assert off(parameter.grad, golden[f"grad/{name}"].view_as(parameter)) < tolerance, name


def attention_by_loops(part, x):
    """One of the two attentions, head by head and token by token, without positions."""
    B, T, _ = x.shape
    H, D = part.n_head, part.width
    y = torch.zeros(B, T, H * D, dtype=x.dtype)

    def unit(row):
        return row / torch.sqrt(row.square().mean() + part.qk_eps)

    for b in range(B):
        rows = (x[b] @ part.qkvg.weight.T).view(T, H, 4, D)
        for h in range(H):
            q, k, v, gate = rows[:, h].unbind(1)
            sink_k, sink_v = part.sink[h].chunk(2)
            for t in range(T):
                end = t + 1 if part.sees_itself else t
                keys = [sink_k, *(unit(k[s]) * part.temperature[1] for s in range(end))]
                values = torch.stack([sink_v, *v[:end]])
                scores = [unit(q[t]) * part.temperature[0] @ key / D**0.5 for key in keys]
                mixed = torch.stack(scores).softmax(0) @ values
                if part.xsa:
                    mixed = mixed - (mixed @ v[t]) * v[t] / (v[t] @ v[t])
                y[b, t, h * D : h * D + D] = mixed * torch.sigmoid(gate[t])
    return y @ part.out.weight.T


@pytest.mark.parametrize("sees_itself", [True, False])
@pytest.mark.parametrize("xsa", [True, False])
def test_definition(tmp_path, sees_itself, xsa):
    """Both attentions and the gate between them, as loops in float64."""
    entry = {"use": "silia", "n_head": 2, "n_qkv": 12, "sees_itself": sees_itself, "xsa": xsa}
    shape = {"vocab_size": 61, "block_size": 16, "n_embd": 16}
    model = build(tmp_path, {**shape, "stack": [{"attention": entry}]}).double().eval()
    mixer = model.visits()[0].block.attention
    torch.manual_seed(4)
    with torch.no_grad():
        mixer.first.sink.normal_()
        mixer.second.sink.normal_()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    use = Use(torch.arange(7), 0, model.positional, model.weights)

    u, gate = attention_by_loops(mixer.first, x).chunk(2, dim=-1)
    expected = attention_by_loops(mixer.second, u * gate * torch.sigmoid(gate))

    torch.testing.assert_close(mixer(x, use), expected, rtol=1e-6, atol=1e-7)


def test_a_width_that_heads_do_not_divide_is_refused(tmp_path):
    """At build, in one line."""
    entry = {"attention": {"use": "silia", "n_head": 4, "n_qkv": 6}}
    shape = {"vocab_size": 61, "block_size": 16, "n_embd": 16}
    with pytest.raises(RecipeError, match="can't be split into 4 heads"):
        build(tmp_path, {**shape, "stack": [entry]})


def test_the_recipe_builds():
    """The recipe beside the plugin is a whole one."""
    recipe = strawberry.load_recipe(HERE.parent / "recipes" / "silia.yaml")
    model = strawberry.build(recipe, device="meta")

    assert len(model.visits()) == 2
