"""The wrap and the built-in `linear` against fla itself: its sources, its references, its layers.

What needs no Triton is read from the installed sources without importing the package, whose import
does.
"""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.components import recurrence

available = pytest.importorskip("strawberry_fla.available")
pytest.importorskip("einops")

SPEC = importlib.util.find_spec("fla")
SOURCES = Path((SPEC.submodule_search_locations or ["none"])[0]) if SPEC else Path("none")
LAYERS = {
    "gla": ("gla", "GatedLinearAttention"),
    "delta_net": ("delta_net", "DeltaNet"),
    "gated_delta_net": ("gated_deltanet", "GatedDeltaNet"),
    "mamba2": ("mamba2", "Mamba2"),
}
"""The file and the class of each in `fla.layers`."""

needs_core = pytest.mark.skipif(not (SOURCES / "ops").exists(), reason="fla-core is not installed")
needs_layers = pytest.mark.skipif(
    not (SOURCES / "layers").exists(), reason="flash-linear-attention is not installed"
)


def wrapped(name):
    from strawberry_fla import linear, mamba2

    classes = {
        "gla": linear.GLA,
        "delta_net": linear.DeltaNet,
        "gated_delta_net": linear.GatedDeltaNet,
        "mamba2": mamba2.Mamba2,
    }
    return classes[name]


def function(tree, name):
    return next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)


def class_of(name):
    file, title = LAYERS[name]
    tree = ast.parse((SOURCES / "layers" / f"{file}.py").read_text("utf-8"))
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == title)


def parameters(node):
    return {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}


@needs_layers
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_asked_for_is_there(name, monkeypatch):
    """Each option that is handed over is a named parameter of fla's constructor.

    Two of them take `**kwargs` and would swallow a wrong one.
    """
    asked = {}

    class Recorder(torch.nn.Module):
        def __init__(self, **options):
            super().__init__()
            asked.update(options)

    def give(title, otherwise):
        assert title == LAYERS[name][1]
        return Recorder

    monkeypatch.setattr(available, "layer_class", give)
    site = type("Site", (), {"n_embd": 64})
    wrapped(name)(site)

    assert asked.keys() <= parameters(function(class_of(name), "__init__"))
    assert {"hidden_size", "layer_idx"} <= asked.keys()


@needs_layers
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_called_as_it_wants_to_be(name):
    """`forward` takes the cache and the flag by these names, and returns three things."""
    forward = function(class_of(name), "forward")
    returns = [n.value for n in ast.walk(forward) if isinstance(n, ast.Return)]

    assert {"past_key_values", "use_cache"} <= parameters(forward)
    assert all(isinstance(r, ast.Tuple) and len(r.elts) == 3 for r in returns)


@needs_layers
@pytest.mark.parametrize("name", LAYERS)
def test_its_matrices_are_where_they_are_looked_for(name):
    """Each projection of its constructor is one that is counted, and the other way round."""
    init = function(class_of(name), "__init__")
    made = {
        target.attr
        for node in ast.walk(init)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr.endswith("_proj")
    }
    kind = wrapped(name)
    assert made == {*kind.reads, kind.writes}


@needs_layers
def test_the_cache_speaks_flas_protocol():
    """Fla's own functions around a layer's cache read from ours and write to it."""
    from strawberry_fla.cache import LayerCache

    tree = ast.parse((SOURCES / "layers" / "utils.py").read_text("utf-8"))
    names = ("require_cache_layer_idx", "get_layer_cache", "update_layer_cache")
    theirs = {}
    code = ast.Module([function(tree, name) for name in names], type_ignores=[])
    exec(compile(code, "fla/layers/utils.py", "exec"), theirs)  # as installed, without its imports
    layer = type("Layer", (), {"layer_idx": 0})()
    state = {"recurrent": torch.zeros(2, 1, 3, 3), "q": torch.zeros(2, 4, 2)}
    cache = LayerCache(state, ["q"], single=False, begun=False, dtype=torch.float64)

    assert theirs["get_layer_cache"](layer, cache) is None
    update = {"recurrent_state": torch.ones(2, 1, 3, 3), "conv_state": (torch.ones(2, 4, 2),)}
    theirs["update_layer_cache"](layer, cache, **update, offset=5)
    assert all((kept == 1).all() for kept in state.values())
    read = theirs["get_layer_cache"](layer, cache)
    assert (read["recurrent_state"] == 1).all()
    assert [tail.dtype for tail in read["conv_state"]] == [torch.float64]


@needs_layers
@pytest.mark.parametrize("name", LAYERS)
def test_it_hands_over_what_is_kept(name):
    """What a layer hands to its cache are the two things that ours keeps, and the offset."""
    calls = [
        node
        for node in ast.walk(function(class_of(name), "forward"))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "update_layer_cache"
    ]
    given = {one.arg for call in calls for one in call.keywords} - {"module", "past_key_values"}
    assert given == {"recurrent_state", "conv_state", "offset"}


def reference(path, name):
    """One of fla's references in plain torch, in float64 where it has float32."""
    source = (SOURCES / "ops" / path / "naive.py").read_text("utf-8")
    source = source.replace(".float()", ".double()").replace("torch.float32", "torch.float64")
    found = {}
    exec(compile(source.replace("torch.float,", "torch.float64,"), path, "exec"), found)
    return found[name]


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def inputs(T=32, D=6, E=5):
    """q, k, v (B, H, T, width), log decays by channel, and b (B, H, T, 1)."""
    q, k, v = (drawn(2, 3, T, n, seed=seed) for seed, n in enumerate((D, D, E)))
    return q, k, v, F.logsigmoid(drawn(2, 3, T, D, seed=3)), drawn(2, 3, T, 1, seed=4).sigmoid()


def agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@needs_core
@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_gated_linear_attention_is_flas(chunk):
    """The built-in recurrence and fla's loop: outputs and state, with a state before them."""
    q, k, v, decay, _ = inputs()
    state = drawn(2, 3, 6, 5, seed=9)
    found = recurrence(q * 6**-0.5, k, v, log_decay=decay, beta=None, state=state, chunk=chunk)
    loop = reference("gla", "naive_recurrent_gla")
    turned = (x.transpose(1, 2) for x in (q, k, v, decay))
    o, S = loop(*turned, initial_state=state, output_final_state=True)
    agree(found, (o.transpose(1, 2), S))


@needs_core
@pytest.mark.parametrize("name", ["delta_rule_recurrence", "delta_rule_chunkwise"])
def test_the_delta_rule_is_flas(name):
    """The built-in recurrence and both of fla's forms, the loop and the one in chunks."""
    q, k, v, _, beta = inputs()
    k = F.normalize(k, dim=-1)
    found = recurrence(q * 6**-0.5, k, v, log_decay=None, beta=beta, state=None, chunk=8)
    agree(found, reference("delta_rule", name)(q, k, v, beta.squeeze(-1)))


@needs_core
@pytest.mark.parametrize(
    "name", ["naive_recurrent_gated_delta_rule", "naive_chunk_gated_delta_rule"]
)
def test_the_gated_delta_rule_is_flas(name):
    """The built-in recurrence and both of fla's forms, with a decay for each head."""
    q, k, v, decay, beta = inputs()
    k, decay = F.normalize(k, dim=-1), decay[..., :1]
    state = drawn(2, 3, 6, 5, seed=9)
    found = recurrence(q * 6**-0.5, k, v, log_decay=decay, beta=beta, state=state, chunk=8)
    form = reference("gated_delta_rule", name)
    given = {"q": q, "k": k, "v": v, "beta": beta.squeeze(-1), "g": decay.squeeze(-1)}
    given = {key: x.transpose(1, 2) for key, x in given.items()}
    o, S = form(**given, initial_state=state, output_final_state=True)
    agree(found, (o.transpose(1, 2), S))


def test_the_refusal_names_the_extra_of_this_distribution():
    """What is told to be installed is what pyproject.toml offers."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert f"pip install '{project['name']}[cuda]'" == available.INSTALL
    assert any("flash-linear-attention[cuda]" in one for one in
               project["optional-dependencies"]["cuda"])  # fmt: skip


@pytest.mark.slow
@needs_layers
def test_flas_layers_in_tritons_interpreter():
    """The real layers, their kernels interpreted on the CPU, which is slow.

    Any split into cached calls gives what one call gives, with kernels in chunks before and after
    recurrent ones; and from the same weights the built-in `linear` gives what the three linear
    layers give, if its norm has their eps.
    """
    pytest.importorskip("transformers")
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("interpreted.py"))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout.splitlines()[-1])
    assert errors.keys() == {"gla", "gla conv", "delta_net", "gated_delta_net", "mamba2"}
    for name, found in errors.items():
        assert len(found) == (6 if name == "mamba2" else 7)
        for what, error in found.items():
            half = name == "delta_net" and ("66" in what or "67" in what)
            assert error < (3e-3 if half else 1e-5), (name, what)
