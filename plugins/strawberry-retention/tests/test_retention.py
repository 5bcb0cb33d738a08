"""The historic layers against their author's own numbers; and that they leak as much as theirs."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import strawberry
from strawberry.commands import run
from strawberry.contracts import Use
from strawberry.errors import RecipeError, StrawberryError
from strawberry.generation import Sampling, sample_ids

HERE = Path(__file__).parent
EPS = 1.1920929e-07
VERSIONS = ["2360c08", "fb0a8c9"]
LEAKS = {"2360c08": (0.87, 0.61), "fb0a8c9": (0.26, 0.13)}
"""How far logits move by later tokens and by other sequences, as measured in the author's code."""
NAMES = {
    "2360c08": {
        "qkv.weight": "retain.w_attn_qkv",
        "glu.weight": "retain.w_attn_swiglu",
        "out.weight": "retain.w_attn_out",
        "statistic.weight": "retain.oa.weight",
        "transform.weight": "retain.t.weight",
    },
    "fb0a8c9": {
        "qkv.weight": "retention.w_attn_qkv",
        "glu.weight": "retention.w_attn_swiglu",
        "out.weight": "retention.w_attn_out",
        "update.weight": "retention.out.weight",
        "tau": "retention.tao",
    },
}
TINY = {"vocab_size": 61, "block_size": 16, "n_embd": 16}


def author_model(version):
    """The model section of the author's recipe at that version."""
    layer = {"use": f"retained_{version}", "n_head": 4, "n_qkv": 64, "steps": 4}
    stack = [{"attention": layer, "norm": "none"}]
    if version == "2360c08":
        stack.append({"ffn": {"use": "swiglu", "n_ffn": 64}})
    return {
        "vocab_size": 96,
        "block_size": 24,
        "n_embd": 32,
        "embedding_norm": True,
        "norm": {"use": "rmsnorm", "gain": False, "eps": EPS},
        "positional": {"use": "rope", "sign": -1},
        "stack": [{"repeat": 2, "stack": stack}],
    }


def recipe_file(folder, model, **sections):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"model": model, **sections}))
    return path


def build(folder, model):
    return strawberry.build(strawberry.load_recipe(recipe_file(folder, model)))


def author_names(model, version):
    """(our parameter, the author's name of it) for every parameter of ours."""
    ours = dict(model.named_parameters())
    yield ours.pop("embedding.weight"), "embed.weight"
    nodes = 2 if version == "2360c08" else 1
    for block in range(2):
        here = f"stack.nodes.{nodes * block}"
        for name, theirs in NAMES[version].items():
            yield ours.pop(f"{here}.attention.{name}"), f"blocks.{block}.{theirs}"
        if version == "2360c08":
            ffn = f"stack.nodes.{2 * block + 1}.ffn"
            yield ours.pop(f"{ffn}.up.weight"), f"blocks.{block}.swiglu.swiglu.weight"
            yield ours.pop(f"{ffn}.down.weight"), f"blocks.{block}.swiglu.out.weight"
    assert not ours


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def golden(version):
    return load_file(HERE / f"retention_{version}.safetensors")


@pytest.fixture
def model(tmp_path, version, golden):
    """Our model with the author's weights, in float64."""
    model = build(tmp_path, author_model(version)).double()
    with torch.no_grad():
        for parameter, name in author_names(model, version):
            parameter.copy_(golden[f"param/{name}"].view_as(parameter))
    return model


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 2e-5)], ids=str
)
def test_the_authors_numbers(model, version, golden, dtype, tolerance):
    """From the author's weights: the author's logits, loss and gradients.

    In float64 what is left is the rounding of those numbers; float32 adds as much of ours.
    """
    model.to(dtype)
    logits = model(golden["idx"])
    loss = model.loss(golden["idx"], golden["targets"])
    loss.total.backward()

    def compare(ours, name):
        theirs = golden[name].view_as(ours).double()
        torch.testing.assert_close(
            ours.double(), theirs, rtol=tolerance, atol=tolerance, msg=lambda m: f"{name}: {m}"
        )

    compare(logits, "logits")
    compare(loss.total, "loss")
    for parameter, name in author_names(model, version):
        compare(parameter.grad, f"grad/{name}")


def moved(model, idx, changed):
    with torch.no_grad():
        return (model(changed) - model(idx)).abs()


def test_later_tokens_move_earlier_logits(model, version, golden):
    """With each id of the second half raised by 1, the first half's logits move this far."""
    idx, half = golden["idx"], golden["idx"].shape[1] // 2
    changed = idx.clone()
    changed[:, half:] = (changed[:, half:] + 1) % 96

    leak = moved(model, idx, changed)[:, :half].max()
    assert leak == pytest.approx(LEAKS[version][0], rel=0.1)


def test_other_sequences_move_logits(model, version, golden):
    """With each id of the other sequences raised by 1, sequence 0's logits move this far."""
    idx = golden["idx"]
    changed = idx.clone()
    changed[1:] = (changed[1:] + 1) % 96

    leak = moved(model, idx, changed)[0].max()
    assert leak == pytest.approx(LEAKS[version][1], rel=0.1)


def test_a_sequence_alone_has_other_logits(model, golden):
    """What the model says of a sequence in a batch is not what it says when it generates."""
    idx = golden["idx"]
    with torch.no_grad():
        assert (model(idx[:1])[0] - model(idx)[0]).abs().max() > 0.05


def test_there_is_no_cache(model, golden):
    """A call with one is refused; sampling computes the whole sequence anew."""
    with pytest.raises(StrawberryError, match="has no decoding state"):
        model(golden["idx"], cache=model.new_cache(2, 24))

    ids = golden["idx"][:1, :5]
    drawn = sample_ids(model, ids, 4, Sampling(temperature=0), torch.Generator())
    for step in drawn:
        with torch.no_grad():
            assert step == model(ids)[0, -1].argmax()
        ids = torch.cat([ids, step[:, None]], dim=1)


def unit(row):
    return row / torch.sqrt(row.square().mean() + EPS)


def silu(x):
    return x * torch.sigmoid(x)


def scaled(W, n):
    """N_n by its definition: the deviation becomes n^-0.5."""
    deviation = torch.sqrt((W - W.mean()).square().sum() / (W.numel() - 1))
    return W * (n**-0.5 / (deviation + 1e-8))


def attention_free(qkv):
    """One sequence (T, 3N), token by token."""
    q, k, v = qkv.chunk(3, dim=-1)
    rows = []
    for t in range(len(qkv)):
        weights = [unit(k[s]).exp() for s in range(t + 1)]
        mean = sum(w * v[s] for s, w in enumerate(weights)) / (sum(weights) + 1e-6)
        rows.append(torch.sigmoid(unit(q[t])) * mean)
    return torch.stack(rows)


def softmax(qkv, n_head):
    """One sequence (T, 3N), head by head and token by token."""
    T, width = len(qkv), qkv.shape[1] // n_head
    rows = torch.zeros(T, qkv.shape[1] // 3, dtype=qkv.dtype)
    for h in range(n_head):
        q, k, v = qkv[:, h * width : (h + 1) * width].chunk(3, dim=-1)
        D = width // 3
        for t in range(T):
            scores = torch.stack([unit(q[t]) @ unit(k[s]) / D**0.5 for s in range(t + 1)])
            rows[t, h * D : (h + 1) * D] = scores.softmax(0) @ v[: t + 1]
    return rows


def first_transform(mixer, x):
    """T_0 of 2360c08, from a sum over the tokens of all sequences."""
    C, N = x.shape[-1], mixer.n_qkv
    Y = torch.zeros(C, C, dtype=x.dtype)
    for row in x.flatten(0, 1):
        o, a = (mixer.statistic.weight @ unit(row)).chunk(2)
        Y += torch.outer(unit(o), unit(a)) / C**0.5
    rows = torch.stack([mixer.transform.weight @ y.softmax(0) for y in Y], dim=1)
    qkv, glu, out = rows.split((3 * N, 2 * N, C))
    return [scaled(qkv, C), scaled(glu.reshape(2 * C, N), N), scaled(out, C)]


def updated(mixer, W, u, v):
    """W' of fb0a8c9, from a mean over all sequences and a sum over their tokens."""
    C, N = len(W[2]), mixer.n_qkv
    A = sum(torch.outer(u[b, t], v[b, t]) for b in range(len(u)) for t in range(u.shape[1]))
    A = torch.stack([unit(row) for row in A / len(u)])

    def moved_row(row):
        return row + mixer.update.weight @ silu(A.T @ row)

    qkv = torch.stack([moved_row(row) for row in W[0]])
    columns = W[1].reshape(C, 2 * N)
    glu = torch.stack([moved_row(column) for column in columns.T], dim=1).reshape(2 * C, N)
    out = torch.stack([moved_row(row) for row in W[2]])
    sizes = (C, N, N)  # the last one is the author's
    return [
        tau.abs() * scaled(part, n)
        for tau, part, n in zip(mixer.tau, (qkv, glu, out), sizes, strict=True)
    ]


def by_definition(mixer, version, x):
    """What the layer adds to the stream."""
    start, W = x, [mixer.qkv.weight, mixer.glu.weight, mixer.out.weight]
    swaps = version == "2360c08"
    T = first_transform(mixer, x) if swaps else None
    for step in range(mixer.steps + 1):
        last = step == mixer.steps
        full = last or (not swaps and step % 4 == 3)
        qkv = torch.stack([torch.stack([W[0] @ unit(row) for row in rows]) for rows in x])
        mixed = torch.stack([softmax(s, mixer.n_head) if full else attention_free(s) for s in qkv])
        u, v = (mixed @ W[1].T).chunk(2, dim=-1)
        x = x + (u * silu(v)) @ W[2].T
        if last:
            break
        if swaps:
            fan_in = [part.shape[1] for part in W]
            new = [scaled(t * silu(w) + w, n) for t, w, n in zip(T, W, fan_in, strict=True)]
            W, T = new, W
        else:
            W = updated(mixer, W, u, v)
    return x - start


@pytest.mark.parametrize("steps", [1, 5])
def test_updates_are_those_of_the_definition(tmp_path, version, steps):
    """Mixer by mixer, with the matrices written out; 5 updates go past the second attention."""
    layer = {"use": f"retained_{version}", "n_head": 2, "n_qkv": 8, "steps": steps}
    stack = [{"attention": layer, "norm": "none"}]
    model = build(tmp_path, {**TINY, "positional": "none", "stack": stack}).double()
    mixer = model.visits()[0].block.attention
    torch.manual_seed(4)
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    use = Use(torch.arange(7), 0, model.positional, model.weights)

    with torch.no_grad():
        torch.testing.assert_close(mixer(x, use), by_definition(mixer, version, x))


@pytest.mark.parametrize("trouble", ["router", "document_mask"])
def test_what_it_cannot_do_is_refused_at_build(tmp_path, version, trouble):
    """It can't mix some of the tokens alone, nor keep documents apart."""
    node = {"attention": f"retained_{version}", "norm": "none"}
    sections = {}
    if trouble == "router":
        node = {"recur": 2, "router": "token_choice", **node}
    else:
        sections = {"train": {"document_mask": True}}
    path = recipe_file(tmp_path, {**TINY, "stack": [node]}, **sections)
    with pytest.raises(RecipeError, match=r"mixes whole sequences|can't separate documents"):
        strawberry.build(strawberry.load_recipe(path))


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path, version):
    """At build, in one line."""
    layer = {"use": f"retained_{version}", "n_head": 3, "n_qkv": 8}
    with pytest.raises(RecipeError, match="can't be split into 3 heads"):
        build(tmp_path, {**TINY, "stack": [{"attention": layer}]})


def test_build_warns_and_generate_wants_its_name(tmp_path, version, capsys, monkeypatch):
    """As for anything that isn't causal: `--allow-noncausal` with the component's name."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "corpus" / "cats.txt"
    text.parent.mkdir()
    text.write_text("the cat sat on the mat\n" * 200)
    name, folder = f"retained_{version}", str(tmp_path / "run")
    path = recipe_file(
        tmp_path,
        {"vocab_size": 257, "block_size": 16, "n_embd": 16, "stack": [{"attention": name}]},
        data={"use": "text", "path": str(text.parent)},
        tokenizer="bytes",
        train={"max_iters": 2, "batch_size": 2, "eval_iters": 1, "device": "cpu"},
    )

    assert run(["build", str(path)]) == 0
    assert f"warning: {name}: not causal" in capsys.readouterr().out
    assert run(["train", str(path), "--run-dir", folder]) == 0
    assert f"no sample, because the model is not causal: {name}" in capsys.readouterr().out
    command = ["generate", folder, "the cat", "--max-new-tokens", "3"]
    assert run(command) == 2
    assert f"pass --allow-noncausal {name} to" in capsys.readouterr().err
    assert run([*command, "--allow-noncausal", name]) == 0
    assert capsys.readouterr().out.startswith("the cat")


@pytest.mark.parametrize("path", sorted((HERE.parent / "recipes").glob("*.yaml")), ids=str)
def test_the_recipes_build(path):
    """The recipes beside the plugin are whole ones."""
    model = strawberry.build(strawberry.load_recipe(path), device="meta")

    assert sum(visit.block.attention is not None for visit in model.visits()) == 2
