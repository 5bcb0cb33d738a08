"""The wrap of fla's layers: calls, caches, counting and refusals, with layers that stand in."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import strawberry
from strawberry.check import checks_for, of_component, run
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model import account
from strawberry.plugin import Plugins
from strawberry.recipe import recipe_from

available = pytest.importorskip("strawberry_fla.available")

HERE = Path(__file__).parent
SMALL = {
    "gla": {"n_head": 2},
    "delta_net": {"n_head": 2},
    "gated_delta_net": {"n_head": 2, "head_dim": 8, "expand_v": 1.5},
    "mamba2": {"head_dim": 16, "state": 8, "groups": 2, "chunk": 16},
}


def fakes():
    if "fake_layers" not in sys.modules:
        spec = importlib.util.spec_from_file_location("fake_layers", HERE / "fake_layers.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["fake_layers"] = module
    return sys.modules["fake_layers"]


@pytest.fixture(scope="module")
def plugins():
    return Plugins.load()


@pytest.fixture
def faked(monkeypatch):
    """Fla's layers are those that stand in, and run on the CPU."""
    monkeypatch.setattr(available, "missing", list)
    monkeypatch.setattr(available, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setitem(sys.modules, "fla.layers", fakes())


def recipe_of(plugins, attention, **model):
    data = {
        "name": "fla",
        "model": {
            "vocab_size": 61,
            "block_size": 96,
            "n_embd": 32,
            "stack": [{"attention": attention}],
            **model,
        },
    }
    return recipe_from(data, "fla", plugins=plugins)


REFEREED = ("future", "batch", "history")
"""What the referee measures: at hundreds of tokens, which loops take half a minute for."""


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param(REFEREED, id="most"),
        pytest.param((), marks=pytest.mark.slow, id="all"),
    ],
)
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *SMALL.items(),
        ("gla", {"n_head": 2, "conv": 3, "gate": False}),
        ("delta_net", {"n_head": 4, "conv": 0, "gate": True}),
    ],
    ids=[*SMALL, "gla with conv", "delta_net without conv"],
)
def test_the_contract_holds(faked, plugins, name, fields, left_out):
    """All of the conformance kit that a layer in float32 can be asked.

    Above all the cache, in any split of a sequence, and that FLOPs, parameters and cache as
    counted are those of a real pass.
    """
    subject = of_component("attention", f"fla/{name}", fields, plugins=plugins)
    # They compute in float32 whatever the weights, so a slope over 1e-6 is noise; and how well and
    # how fast loops learn says nothing.
    left_out = (*left_out, "gradcheck", "compile", "speed", "learns")
    asked = [check for check in checks_for("attention") if check not in left_out]
    found = {o.check: (o.verdict, o.detail) for o in run(subject, asked)}
    verdict, detail = found.pop("device")
    assert (verdict, "runs on cuda or cpu alone" in detail) == ("skipped", True)
    assert {c: f for c, f in found.items() if f[0] != "passed"} == {}


@pytest.mark.parametrize("name", SMALL)
def test_a_token_sees_what_is_before_it_in_its_sequence(faked, plugins, name):
    """No later token, no other sequence and no earlier batch changes an output."""
    model = strawberry.build(recipe_of(plugins, {"use": f"fla/{name}", **SMALL[name]}))
    idx = torch.randint(61, (2, 24), generator=torch.Generator().manual_seed(3))
    changed = idx.clone()
    changed[0, 12:] = (idx[0, 12:] + 1) % 61
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            before, after, again = model(idx), model(changed), model(idx)
        torch.testing.assert_close(after[0, :12], before[0, :12], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(after[1], before[1], rtol=1e-5, atol=1e-6)
        assert torch.equal(again, before)
        assert (after - before)[0, 12:].abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_flops_are_those_of_matrices_and_recurrence(faked, plugins, name):
    """Two a number of the matrices, and for each number of the state two for each of its uses.

    It is written and read, and with the delta rules read once more.
    """
    fields = SMALL[name]
    model = strawberry.build(recipe_of(plugins, {"use": f"fla/{name}", **fields}))
    mixer = model.visits()[0].block.attention
    matrices = sum(
        p.numel() for n, p in mixer.named_parameters() if p.ndim == 2 and "conv" not in n
    )
    state = model.new_cache(1, 1).states[0]["recurrent"].numel()
    uses = 3 if "delta" in name else 2
    report = account(recipe_of(plugins, {"use": f"fla/{name}", **fields}))
    (block,) = (part for part in report.parts if "head" not in part.path)

    assert block.cost.flops_forward == 96 * (2 * matrices + 2 * uses * state)
    assert block.cost.flops_training == 3 * block.cost.flops_forward


@pytest.mark.parametrize("name", SMALL)
def test_the_cache_is_of_constant_size(faked, plugins, name):
    """The same for one token as for ninety."""
    model = strawberry.build(recipe_of(plugins, {"use": f"fla/{name}", **SMALL[name]}))
    assert model.new_cache(1, 1).nbytes() == model.new_cache(1, 90).nbytes()


def test_tails_are_kept_in_the_type_of_the_computation(faked, plugins):
    """A cache in float32 under bfloat16 autocast, and the other way round; the sums in float32."""
    for name in ("delta_net", "mamba2"):
        model = strawberry.build(recipe_of(plugins, {"use": f"fla/{name}", **SMALL[name]})).eval()
        idx = torch.arange(9)[None]
        for kept, cast in ((torch.float32, True), (torch.bfloat16, False)):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=cast):
                cache = model.new_cache(1, 9, dtype=kept)
                pieces = [model(piece, cache=cache) for piece in idx.split([4, 1, 4], dim=1)]
                expected = model(idx).float()
            found = torch.cat(pieces, 1).float()
            assert (found - expected).abs().max() < 0.05 * expected.abs().max()
            assert cache.states[0]["recurrent"].dtype == torch.float32
            assert cache.states[0]["conv" if name == "mamba2" else "conv_q"].dtype == kept


def test_a_convolution_is_no_bank_of_matrices(faked, plugins):
    """Its three-dimensional weight is a vector to an optimizer; the matrices are matrices."""
    for name in ("delta_net", "mamba2"):
        model = strawberry.build(recipe_of(plugins, {"use": f"fla/{name}", **SMALL[name]}))
        kinds = {i.name: i.kind for i in model.parameter_infos() if ".attention." in i.name}
        assert {kind for n, kind in kinds.items() if "conv1d" in n} == {"vector"}
        assert {kind for n, kind in kinds.items() if "proj.weight" in n} == {"matrix"}


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ({"use": "gla", "n_head": 3}, "expand_k: width 16 can't be split into 3 heads"),
        ({"use": "gla", "expand_v": 0.33}, "expand_v: gives a width of 10.56, which is no whole"),
        ({"use": "delta_net", "conv": 1}, "conv: must be 0 or at least 2, got 1"),
        ({"use": "delta_net", "n_head": 1, "expand_k": 9}, "expand_k: .* 288 wide; .* 256 at most"),
        ({"use": "gated_delta_net", "n_head": 5}, "head_dim: width 24 can't be split into 5"),
        ({"use": "gated_delta_net", "head_dim": 257}, "head_dim: .* 256 at most"),
        ({"use": "mamba2", "head_dim": 24}, "head_dim: width 64 can't be split into heads of 24"),
        (
            {"use": "mamba2", "head_dim": 16, "groups": 3},
            "groups: 4 heads .* into 3 groups",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(faked, plugins, attention, message):
    """At build, in one line, at the field."""
    with pytest.raises(RecipeError, match=message):
        strawberry.build(recipe_of(plugins, {**attention, "use": f"fla/{attention['use']}"}))


def test_long_sequences_in_float32_are_refused_where_the_kernel_does(faked, plugins):
    """DeltaNet's chunked kernel takes half precision alone; up to 64 tokens another one runs."""
    recipe = recipe_of(plugins, {"use": "fla/delta_net", **SMALL["delta_net"]})
    model = strawberry.build(recipe).eval()
    model(torch.zeros(1, 64, dtype=torch.long))
    with pytest.raises(StrawberryError, match="65 tokens and more in half precision alone: write"):
        model(torch.zeros(1, 65, dtype=torch.long))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(1, 65, dtype=torch.long))


def test_a_model_on_another_device_is_refused(faked, plugins, monkeypatch):
    """Built where there is a GPU and run on the CPU: one line, with what would do."""
    model = strawberry.build(recipe_of(plugins, {"use": "fla/gla", **SMALL["gla"]}))
    monkeypatch.setattr(available, "DEVICES", ("cuda",))
    with pytest.raises(
        StrawberryError, match="runs on cuda alone, and this model is on cpu; atten"
    ):
        model(torch.zeros(1, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("cuda", "installed", "message"),
    [
        (False, ("triton", "fla"), "run here: torch finds no CUDA device; attention `linear` with"),
        (True, ("fla",), r"here: to be installed: triton \(pip install 'strawberry-fla\[cuda\]'\)"),
        (True, (), "here: to be installed: triton, flash-linear-attention \\("),
        (False, (), "no CUDA device; to be installed: triton, flash-linear-attention"),
    ],
)
def test_what_is_missing_is_said(plugins, monkeypatch, cuda, installed, message):
    """A CUDA device, Triton, the package: whichever, in one line at the place of the recipe."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(available, "find_spec", lambda name: name in installed or None)
    with pytest.raises(RecipeError, match=message) as caught:
        strawberry.build(recipe_of(plugins, {"use": "fla/gla"}))
    assert str(caught.value).startswith("fla:1:1: model.stack[0].attention: fla's GatedLinear")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("gla", {"rule": "gla"}),
        ("delta_net", {"rule": "delta"}),
        ("gated_delta_net", {"rule": "gated_delta"}),
        ("mamba2", {"rule": "gla", "decay": "head", "conv": 4}),
    ],
)
def test_the_way_out_that_is_named_can_be_gone(plugins, monkeypatch, name, rule):
    """The refusal names `linear` with fields that it has, and with them it builds."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError) as caught:
        strawberry.build(recipe_of(plugins, {"use": f"fla/{name}", **SMALL[name]}))
    assert all(f"`{key}: {value}`" in str(caught.value) for key, value in rule.items())
    strawberry.build(recipe_of(plugins, {"use": "linear", **rule}), device="meta")


def test_a_broken_installation_is_said(plugins, monkeypatch):
    """Packages that are there and can't be imported, or are of another version."""
    monkeypatch.setattr(available, "missing", list)
    monkeypatch.setitem(sys.modules, "fla.layers", None)
    with pytest.raises(RecipeError, match=r"fla's Mamba2 can't be imported .*: pip install"):
        strawberry.build(recipe_of(plugins, {"use": "fla/mamba2"}))
    monkeypatch.setitem(sys.modules, "fla.layers", SimpleNamespace())
    with pytest.raises(RecipeError, match=r"fla's DeltaNet can't be imported .*'DeltaNet'"):
        strawberry.build(recipe_of(plugins, {"use": "fla/delta_net"}))


def test_the_recipe_builds_where_the_layers_are(faked):
    """The recipe beside the plugin is a whole one; its depth and its parts are counted."""
    recipe = strawberry.load_recipe(
        HERE.parent / "recipes" / "gpu" / "gated_delta_net.yaml", ["model.block_size=64"]
    )
    report = account(recipe)

    assert report.depth == 12
    assert report.cache_bytes_per_token == 0


def test_the_refusal_in_the_readme_is_the_real_one(plugins, monkeypatch):
    """Word for word, on a machine without any of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(available, "find_spec", lambda name: None)
    recipe = Path(strawberry.__file__).parents[1] / "recipes" / "gpt2.yaml"
    changes = ["model.positional=none", "model.stack.*.attention=gla"]
    with pytest.raises(RecipeError) as caught:
        strawberry.build(strawberry.load_recipe(recipe, changes))
    said = str(caught.value).partition("model.stack[0]")[2].splitlines()[0]
    assert said in (HERE.parent / "README.md").read_text("utf-8")
