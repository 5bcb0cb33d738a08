"""The original project's configuration, exactly as its README prints it."""

import json
import re
from pathlib import Path

import pytest
from strawberry_original.configuration import KNOWN, TRAIN_KEYS

import strawberry
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe

FILE = Path(__file__).parents[3] / "recipes/original.json"
TEXT = FILE.read_text()


def load(folder, text=TEXT, overrides=()):
    path = folder / "original.json"
    path.write_text(text)
    return load_recipe(path, overrides)


def change(key, value):
    """The text with another value for a key."""
    return re.sub(rf'("{key}": )[^,\n/]+', rf"\g<1>{value}", TEXT, count=1)


def test_every_key_is_known():
    """No key of the printed configuration is missing from the table of what is honoured."""
    plain = json.loads(re.sub(r"//[^\n]*", "", TEXT))
    for section in ("", "dataset", "checkpoints", "model_hyperparams", "optimizer_hyperparams"):
        keys = set(plain[section]) if section else set(plain)
        assert keys <= KNOWN[section]


def test_what_it_becomes(tmp_path):
    """Each key's value is found where the table says."""
    recipe = load(tmp_path)
    model, train = recipe.model, recipe.train
    (recur,) = model.stack
    aft = recur.stack[0].stack[0].attention
    adamw = recipe.optimizer[0].component

    assert (model.vocab_size, model.block_size, model.n_embd) == (8192, 256, 64)
    assert (recur.count, recur.sharing, recur.stack[0].count) == (2, "sequence", 2)
    assert recur.weights.fields["rank"] == 16
    assert (aft.fields["n_qkv"], aft.fields["n_ffn"]) == (256, 256)
    assert (recipe.data.fields["path"], recipe.data.fields["data_division"]) == (
        "data/webtext.bin",
        0.8,
    )
    assert recipe.tokenizer.fields["path"] == "bin/cl8k.bin"
    assert adamw.fields["betas"] == (0.9, 0.95)
    assert (adamw.fields["eps"], adamw.fields["weight_decay"]) == (1e-10, 0.1)
    assert recipe.schedule.entry.name == "trapezoid"
    assert (train.max_iters, train.eval_interval, train.checkpoint_interval) == (50000, 2000, 2000)
    assert (train.learning_rate, train.min_lr, train.cooldown_frac) == (3e-3, 3e-4, 0.4)
    assert (train.warmup_iters, train.lr_decay_iters, train.log_interval) == (2000, 50000, 200)
    assert (train.batch_size, train.gradient_accumulation_steps, train.eval_iters) == (4, 1, 200)
    assert any("seed: auto" in note for note in recipe.notes)


def test_every_fourth_layer_is_the_expert_abundance(tmp_path):
    """n_layer counts weight sets; 4, 8, ... are the Expert Abundance."""
    recipe = load(tmp_path, change("n_layer", 6))
    model = strawberry.build(recipe, "meta")
    kinds = [type(v.block.attention).__name__ for v in model.visits()][::2]

    assert kinds == ["AFTSimple"] * 3 + ["ExpertAbundance"] + ["AFTSimple"] * 2
    assert recipe.model.positional.entry.name == "rope"


def test_muon_and_constant_rate(tmp_path):
    """`use_muon` and `decay_lr` choose the optimizer and the schedule."""
    text = TEXT.replace('"use_muon": false', '"use_muon": true')
    recipe = load(tmp_path, text.replace('"decay_lr": true', '"decay_lr": false'))
    muon = recipe.optimizer[0].component

    assert (muon.entry.name, muon.fields["momentum_warmup"]) == ("muon", 300)
    assert muon.fields["rest"].entry.name == "adamw"
    assert recipe.schedule.entry.name == "constant"


def test_parameter_count_is_the_seeds(tmp_path):
    """At the code's own sizes (4 layers, no n_ffn): 549,888 parameters."""
    recipe = load(
        tmp_path,
        change("n_layer", 4).replace('"n_qkv": 256,', '"n_qkv": 256').replace('"n_ffn": 256', ""),
    )
    model = strawberry.build(recipe, "meta")

    assert sum(p.numel() for p in model.parameters()) == 549_888


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (change("n_embd", '"wide"'), "expected a positive whole number"),
        (TEXT.replace('"n_layer"', '"n_layers"'), "has no 'n_layers'; did you mean 'n_layer'?"),
        (change("init_from", '"pretrained,x"'), "a pretrained model is a pickle"),
        (change("batch_size", "-4"), "expected at least 1, got -4"),
        (change("use_muon", '"no"'), "expected true or false, got 'no'"),
        (change("decay_lr", "1"), "expected true or false, got 1"),
        (change("n_layer", "100000000"), "expected at most 10000, got 100000000"),
        (change("max_iters", '"x"'), "expected a whole number, got the text 'x'"),
        (change("seed", '"sometimes"'), "expected a whole number of at least 0, or auto"),
        (TEXT.replace('"max_iters"', '"max_iter"'), "has no 'max_iter'; did you mean 'max_iters'?"),
    ],
)
def test_mistakes_are_located(tmp_path, text, expected):
    """A mistake in the JSON is reported at its line and column, comments notwithstanding."""
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)

    (problem,) = [p for p in caught.value.problems if expected in p.message]
    assert problem.location.line > 1


def test_it_builds():
    """The printed configuration builds through the public API."""
    recipe = strawberry.load_recipe(FILE)

    assert strawberry.build(recipe, device="meta").block_size == 256


def test_every_key_is_in_the_guide():
    """No key that a configuration may have is missing from the plugin's page."""
    guide = (Path(__file__).parents[1] / "README.md").read_text()
    same = set(TRAIN_KEYS)  # "the same names"
    assert [key for key in KNOWN[""] - same if f"`{key}" not in guide] == []


def test_a_recipe_extends_it(tmp_path):
    """What a recipe says comes on top of what the configuration means."""
    (tmp_path / "original.json").write_text(TEXT)
    (tmp_path / "mine.yaml").write_text("extends: original.json\ntrain: {max_iters: 7}\n")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.train.max_iters, recipe.model.n_embd) == (7, 64)


def test_round_trip(tmp_path):
    """The recipe written out loads to an equal one, without this plugin."""
    recipe = load_recipe(FILE)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    again = load_recipe(tmp_path, plugins=Plugins.load(disabled=["original"]))
    assert again == recipe
