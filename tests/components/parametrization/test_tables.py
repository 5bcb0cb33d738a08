"""Parametrizations against the tables of their papers, and against what those are for."""

import math

import pytest
import torch
from torch import nn

import strawberry
from strawberry.contracts import Initial, MatrixLayout, ParameterInfo, Weight
from strawberry.errors import RecipeError, StrawberryError
from strawberry.recipe import carried, patch, resized
from strawberry.training.optimizers import Optimizers, _scale_groups
from tests.support import REGISTRY, recipe_of, tiny

CPU = torch.device("cpu")
BLOCK = {"attention": {"use": "mha", "n_head": 2}, "ffn": {"use": "swiglu", "n_ffn": 32}}
TABLE = Weight("embedding", "embedding", 1, 256, grows=(False, True), in_block=False)
HEAD = Weight("head", "head", 256, 100, grows=(True, False), in_block=False)
HIDDEN = Weight("ffn.up", "matrix", 256, 512)
ROUTER = Weight("ffn.router", "matrix", 256, 8, grows=(True, False))
GAIN = Weight("norm", "vector", 1, 256, grows=(False, True))
PAIRS = Weight("attention.pairs", "matrix", 64, 64, grows=(False, False))


def made(name, n_embd=256, depth=16, **fields):
    """A parametrization at a width of 256 and a depth of 16."""
    from strawberry.contracts import ParametrizationSite

    cls = REGISTRY.find("parametrization", name).load()
    return cls(ParametrizationSite(n_embd, depth), **fields)


def test_the_table_of_mup():
    """Table 8 at four times the base width: starts, multipliers, rates of Adam and of SGD."""
    mup = made("mup", base_width=64)
    base = made("standard", n_embd=64)
    std = {w: mup.initial(w).std / base.initial(b).std for w, b in (
        (TABLE, TABLE), (HEAD, HEAD), (HIDDEN, Weight("ffn.up", "matrix", 64, 128)),
        (ROUTER, Weight("ffn.router", "matrix", 64, 8)), (PAIRS, PAIRS),
    )}  # fmt: skip
    multipliers = [mup.initial(w).multiplier for w in (TABLE, HEAD, HIDDEN)]
    adam = [mup.step(w, "elementwise").rate for w in (TABLE, GAIN, HIDDEN, HEAD, ROUTER, PAIRS)]
    sgd = [mup.step(w, "gradient").rate for w in (TABLE, GAIN, HIDDEN, HEAD)]

    assert std == {TABLE: 1, HEAD: 1, HIDDEN: 1 / 2, ROUTER: 1 / 4, PAIRS: 1}
    assert multipliers == [1, 1 / 4, 1]
    assert adam == [1, 1, 1 / 4, 1, 1 / 4, 1]
    assert sgd == [4, 4, 1, 4]


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_table_of_complete_p(alpha):
    """Table 1 at m_N = 4 and m_L = 8: the rates, decays and epsilons of AdamW, and the branch."""
    p = made("complete_p", base_width=64, base_depth=2, alpha=alpha)
    hidden, gain, table, head = (p.step(w, "elementwise") for w in (HIDDEN, GAIN, TABLE, HEAD))

    assert p.branch() == 8**-alpha
    assert (hidden.rate, hidden.epsilon) == (8 ** (alpha - 1) / 4, 8**-alpha / 4)
    assert hidden.decay * hidden.rate == 1  # the same decay of a weight in each step
    assert gain.rate == 8 ** (alpha - 1)
    assert (table.rate, head.rate, table.epsilon, head.epsilon) == (1, 1, 1 / 4, 1 / 4)
    assert (p.initial(HEAD).multiplier, p.initial(HIDDEN).std) == (1 / 4, 256**-0.5)


def test_the_table_of_u_mup():
    """Table 2: deviations of 1, multipliers 1, fan_in^-0.5, fan_in^-1, and Adam's rates."""
    p = made("u_mup", depth=4)
    starts = [p.initial(w) for w in (TABLE, HIDDEN, HEAD)]
    rates = [p.step(w, "elementwise").rate for w in (TABLE, HIDDEN, HEAD)]

    assert starts == [Initial(1.0), Initial(1.0, False, 1 / 16), Initial(1.0, False, 1 / 256)]
    assert rates == [1 / 16, 1 / 16 / 2, 1]
    assert p.branch() == 1 / 2


OPTIMIZERS = {
    "adamw": {}, "lion": {}, "muon": {}, "muon by rms": {"adjust_lr": "match_rms_adamw"},
    "adafactor": {}, "sgd": {"momentum": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_moves_features_alike_at_every_width(name):
    """A step of any optimizer on a hidden matrix changes W x by as much, whatever the width.

    The gradient is that of one token: an outer product, with entries of 1 / width, of x with
    entries of 1 and of what flows back.
    """
    from strawberry.contracts import OptimizerSite

    def moved(width):
        mup = made("mup", n_embd=width, base_width=32)
        generator = torch.Generator().manual_seed(0)
        x, back = torch.randn(2, width, generator=generator)
        weight = torch.randn(width, width, generator=generator) * width**-0.5
        parameter = nn.Parameter(weight.clone())
        seen = Weight("w", "matrix", width, width)
        layout = MatrixLayout.single("w", width)
        info = ParameterInfo("w", parameter, "matrix", layout, seen, mup)
        source = REGISTRY.find("optimizer", name.split()[0]).load()
        factory = source(OptimizerSite(), weight_decay=0.0, **OPTIMIZERS[name])
        optimizer = factory.make([info], lr=1e-2, device=CPU)
        _scale_groups(optimizer, [info], factory.update)
        parameter.grad = torch.outer(back, x) / width
        optimizer.step()
        return ((parameter.detach() - weight) @ x).pow(2).mean().sqrt().item()

    narrow, wide = moved(32), moved(512)
    assert 0.6 < wide / narrow < 1.6


@pytest.mark.parametrize("use", ["mup", "complete_p"])
def test_the_base_is_the_standard(use):
    """At its base, every number of the model and of its training is that of `standard`."""
    fields = {"use": use, "base_width": 16, "init": "normal", "std": 0.05, "zero_outputs": True}
    plain = {k: v for k, v in fields.items() if k in ("init", "std", "zero_outputs")}
    models = [
        strawberry.build(tiny({"repeat": 2, **BLOCK}, tie_embeddings=False, parametrization=p))
        for p in (fields, plain)
    ]

    for one, other in zip(*(m.named_parameters() for m in models), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
    assert {i.step("elementwise") for i in models[0].parameter_infos()} == {
        i.step("elementwise") for i in models[1].parameter_infos()
    }


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_logits_of_a_wide_model(tied):
    """A table starts alike at every width, tied or not, and logits are divided (mup, issue 55)."""
    recipe = tiny(BLOCK, tie_embeddings=tied, parametrization={"use": "mup", "base_width": 16})
    stds, logits = [], []
    for width in (16, 256):
        model = strawberry.build(resized(recipe, width))
        stds.append(model.embedding.weight.std().item())
        hidden = torch.randn(3, width)
        logits.append(model.head_logits(hidden) / (hidden @ model.head_weight.T))

    assert stds[0] == pytest.approx(16**-0.5, rel=0.1)
    assert stds[1] == pytest.approx(stds[0], rel=0.1)
    assert logits[0].allclose(torch.ones(3, 61))
    assert logits[1].allclose(torch.full((3, 61), 1 / 16))


def test_what_grows_is_found_whatever_the_component():
    """Experts, factors, tables of positions and norms: the roles follow from a wider sibling."""
    entry = {
        "recur": 2,
        "weights": {"use": "factorized", "rank": 4},
        "stack": [
            {"attention": {"use": "aft_full", "n_qkv": 16}, "ffn": {"use": "moe", "experts": 2}}
        ],
    }
    model = strawberry.build(tiny(entry, parametrization="mup"))
    infos = model.parameter_infos()
    roles = {i.name.removeprefix("stack.nodes.0."): i.weight.role for i in infos}

    assert roles["weights.blocks.0"] == "output"  # (C, 4), used as x @ W
    assert roles["weights.bases.attention_out_16x16"] == "input"  # (C, 4)
    assert roles["nodes.0.ffn.router.weight"] == "output"  # (2, C)
    assert roles["nodes.0.attention.biases"] == "fixed"  # (T, T)
    assert {r for n, r in roles.items() if "norm" in n} == {"input"}


def test_groups_and_rates_survive_a_resume():
    """With factors on rates, a run goes on bit for bit from its state, and logs the base rate."""
    model = {"vocab_size": 61, "block_size": 16, "n_embd": 32, "stack": [BLOCK]}
    base = {"use": "complete_p", "base_width": 16, "base_depth": 1}
    recipe = recipe_of({**model, "parametrization": base}, optimizer="adamw")
    ids = torch.randint(61, (2, 16), generator=torch.Generator().manual_seed(1))

    def step(model, optimizers, number):
        optimizers.zero_grad()
        model.loss(ids, ids.roll(-1, 1)).total.backward()
        optimizers.step(number)

    whole = strawberry.build(recipe)
    first = Optimizers(recipe, whole.parameter_infos(), CPU)
    for number in range(2):
        step(whole, first, number)
    again = strawberry.build(recipe)
    again.load_state_dict(whole.state_dict())
    second = Optimizers(recipe, again.parameter_infos(), CPU)
    second.load(*first.state())
    for model, optimizers in ((whole, first), (again, second)):
        step(model, optimizers, 2)

    base = first.schedule(2)
    assert first.rates() == second.rates() == {"lr": pytest.approx(base)}
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    rates = {round(g["lr"] / base, 9) for _, o in second.parts for g in o.param_groups}
    assert rates == {1.0, 0.5}  # of tables and vectors, and of hidden matrices


def test_a_rate_is_carried_to_a_wide_recipe():
    """`standard` becomes `mup` or `complete_p` at the sibling's size; those keep their base."""
    wide = tiny({"repeat": 4, **BLOCK}, n_embd=64, parametrization={"zero_outputs": True})
    narrow, shallow = resized(wide, 16), resized(wide, 16, depth=0.5)

    assert narrow.model.n_embd == 16
    assert carried(wide, wide, 0.1) == {"train.learning_rate": 0.1}
    here = patch(wide, carried(wide, narrow, 0.1)).model.components["parametrization"]
    assert here.use == "strawberry/mup"
    assert (here.fields["base_width"], here.fields["zero_outputs"]) == (16, True)
    here = patch(wide, carried(wide, shallow, 0.1)).model.components["parametrization"]
    assert (here.use, here.fields["base_depth"]) == ("strawberry/complete_p", 2)
    based = patch(wide, {"model.parametrization": {"use": "mup", "base_width": 32}})
    assert carried(based, resized(based, 16), 0.1) == {"train.learning_rate": 0.1}
    with pytest.raises(StrawberryError, match="differ in their parametrization"):
        carried(wide, based, 0.1)


def test_sources_with_a_size_of_their_own_are_refused():
    """Retained weights are normalised, so multipliers of unit-scaled ones can't hold."""
    entry = {"recur": 2, "weights": "retained", "stack": [BLOCK]}
    with pytest.raises(RecipeError, match="retained weights have a size of their own"):
        strawberry.build(tiny(entry, parametrization="u_mup"))


@pytest.mark.parametrize("width", [16, 128])
def test_u_mup_starts_every_part_near_one(width):
    """What enters and leaves each matrix has a root mean square near 1, at any width."""
    recipe = tiny({"repeat": 2, **BLOCK}, tie_embeddings=False, parametrization="u_mup")
    model = strawberry.build(resized(recipe, width))
    sizes = {}
    for name, module in model.named_modules():
        if name.endswith(("qkv", "up", "out", "down")):
            module.register_forward_hook(
                lambda _, __, y, name=name: sizes.update({name: y.pow(2).mean().sqrt().item()})
            )
    with torch.no_grad():
        logits = model(torch.randint(61, (2, 16)))

    assert len(sizes) == 8
    assert all(0.2 < size < 2 for size in sizes.values())
    assert logits.std() < 2 / math.sqrt(width)


def coordinates_of(*uses):
    """What the check measures at widths of 16 and 128, under each parametrization."""
    from strawberry.check import coordinates

    recipe = tiny(BLOCK, tie_embeddings=False, parametrization={"use": "mup", "base_width": 16})
    recipe = patch(recipe, {"optimizer": "adamw", "schedule": "constant", "train.warmup_iters": 0})
    recipe = patch(recipe, {"train.learning_rate": 0.005})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coordinates, "TIMES", (1, 8))
        patched.setattr(coordinates, "SEEDS", 1)
        for use in uses:
            yield coordinates.measure(patch(recipe, {"model.parametrization": use} if use else {}))


def test_coordinates_stay_alike_under_mup_alone():
    """After ten steps at eight times the width, activations grow under `standard`, not `mup`."""
    from strawberry.check.coordinates import SLOPE

    mup, standard = coordinates_of(None, "standard")

    assert max(map(abs, mup.slopes().values())) < SLOPE
    assert any(standard.slope(each) > SLOPE for each in standard.sizes.values())
    learned = {name: standard.slope(each) for name, each in standard.learned.items()}
    assert learned.pop("head.weight") > 0  # by less than the bound
    assert all(slope > SLOPE for slope in learned.values())
    hidden = [slope for name, slope in learned.items() if name.startswith("stack.")]
    assert len(hidden) == 4
    assert all(slope > 2 * SLOPE for slope in hidden)


def test_a_rate_that_falls_too_fast_is_seen_in_what_matrices_learn(monkeypatch):
    """Activations alone stay alike where hidden matrices learn at 1 / width^1.5."""
    from strawberry.check.coordinates import SLOPE
    from strawberry.components.parametrization import mup

    monkeypatch.setitem(mup.POWERS, "elementwise", {"hidden": -1.5, "output": -1.0})
    [measured] = coordinates_of(None)
    slopes = measured.slopes()
    wrong = {name for name, slope in slopes.items() if abs(slope) > SLOPE}

    assert wrong == {f"learning of {n}" for n in measured.learned if n.startswith("stack.")}
    assert all(slopes[name] < 0 for name in wrong)
