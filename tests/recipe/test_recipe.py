import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe, patch
from strawberry.recipe.schema import json_schema
from strawberry.recipe.spec import BlockSpec, RecurSpec, RepeatSpec
from strawberry.recipe.yaml import parse, read_tree

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PLUGINS = Plugins.load()


def write(folder, text, name="recipe.yaml"):
    path = folder / name
    path.write_text(text)
    return path


MINIMAL = """\
model: {vocab_size: 61, block_size: 16, n_embd: 16, stack: [{attention: mha}]}
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-7", -7),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("true", True),
        ("~", None),
        ("'012'", "012"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_scalars(text, value):
    """Scalars mean what YAML 1.2 says: no surprises with `no`, times or numbers."""
    assert parse(f"a: {text}", "x").get("a").value == value


def test_aliases_are_allowed():
    """Modest aliases work; each use is a value of its own."""
    tree = parse("a: &x {b: 1}\nc: *x\n", "x")

    assert tree.plain() == {"a": {"b": 1}, "c": {"b": 1}}


def test_defaults_are_filled(tmp_path):
    """What a recipe leaves out gets its default, under full component names."""
    recipe = load_recipe(write(tmp_path, MINIMAL))

    assert recipe.name == "recipe"
    assert recipe.model.norm.use == "strawberry/rmsnorm"
    assert recipe.model.stack[0].attention.fields["n_head"] == 4
    assert recipe.optimizer[0].component.use == "strawberry/muon"
    assert recipe.train.max_iters == 1000


def test_stack_nodes(tmp_path):
    """Blocks, repeats and recursions, nested, and the short forms over a single block."""
    text = """\
model:
  vocab_size: 61
  block_size: 16
  n_embd: 16
  stack:
    - ffn: mlp
    - repeat: 2
      attention: mha
    - recur: 3
      sharing: sequence
      weights: factorized
      stack:
        - attention: none
          ffn: swiglu
"""
    block, repeat, recur = load_recipe(write(tmp_path, text)).model.stack

    assert isinstance(block, BlockSpec)
    assert block.attention is None
    assert isinstance(repeat, RepeatSpec)
    assert isinstance(repeat.stack[0], BlockSpec)
    assert isinstance(recur, RecurSpec)
    assert (recur.count, recur.sharing, recur.weights.entry.name) == (3, "sequence", "factorized")


def test_extends(tmp_path):
    """Mappings merge, lists and other components replace, and places stay true."""
    write(tmp_path, MINIMAL + "train: {max_iters: 5, batch_size: 2}\n", "base.yaml")
    child = write(
        tmp_path,
        "extends: base.yaml\ntrain: {batch_size: 3}\nmodel: {norm: layernorm}\n",
        "child.yaml",
    )
    recipe = load_recipe(child)

    assert recipe.name == "child"
    assert (recipe.train.max_iters, recipe.train.batch_size) == (5, 3)
    assert recipe.model.norm.entry.name == "layernorm"
    assert recipe.train.at.fields["max_iters"].file.endswith("base.yaml")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("model.n_embd=32", lambda r: r.model.n_embd == 32),
        ("train.learning_rate=1e-4", lambda r: r.train.learning_rate == 1e-4),
        ("model.stack[0].attention.n_head=2", lambda r: heads(r) == [2]),
        ("model.stack.*.attention=aft_simple", lambda r: names(r) == ["aft_simple"]),
        ("model.stack.*.attention={use: mha, n_head: 8}", lambda r: heads(r) == [8]),
        ("model.norm.eps=0.5", lambda r: r.model.norm.fields["eps"] == 0.5),
        (
            "optimizer.weight_decay=0",
            lambda r: r.optimizer[0].component.fields["weight_decay"] == 0,
        ),
        ("data.use=stdlib", lambda r: r.data.use == "strawberry/stdlib"),
    ],
)
def test_overrides(tmp_path, override, read):
    """`--set` reaches fields, stack entries, all blocks, and components given by name alone."""
    assert read(load_recipe(write(tmp_path, MINIMAL), [override]))


def heads(recipe):
    return [block.attention.fields["n_head"] for block in recipe.model.stack]


def names(recipe):
    return [block.attention.entry.name for block in recipe.model.stack]


def test_star_reaches_nested_blocks():
    """`stack.*` stands for every block at any depth."""
    recipe = load_recipe(ROOT / "recipes/original_air.yaml", ["model.stack.*.attention=mha"])
    (recur,) = recipe.model.stack
    repeat, block = recur.stack

    assert block.attention.entry.name == "mha"
    assert repeat.stack[0].attention.entry.name == "mha"


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_round_trip(path, tmp_path):
    """A recipe written out, resolved and filled, loads to an equal recipe."""
    recipe = load_recipe(path)
    again = load_recipe(write(tmp_path, recipe.to_yaml()))

    assert again == recipe


def test_patch():
    """A resolved recipe can be changed by overrides, without its file."""
    recipe = load_recipe(ROOT / "recipes/llama.yaml")
    changed = patch(recipe, ["model.stack.*.ffn=mlp", "seed=7"])

    assert changed.seed == 7
    assert changed.model.stack[0].stack[0].ffn.entry.name == "mlp"
    assert patch(recipe, []) == recipe


def test_run_folder_is_a_recipe(tmp_path):
    """The recipe of a run is found by the run's folder."""
    write(tmp_path, MINIMAL)

    assert load_recipe(tmp_path).model.n_embd == 16


@pytest.fixture(scope="module")
def validator():
    """Of the JSON Schema, which is one itself."""
    schema = json_schema(PLUGINS)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_recipes_fit_the_schema(path, validator):
    """Every recipe that comes along is valid by the JSON Schema, and names it for editors."""
    validator.validate(read_tree(path).plain())

    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


def test_schema_knows_misspellings():
    """The schema refuses what the loader refuses: an unknown field of a component."""
    schema = json_schema(PLUGINS)
    recipe = yaml.safe_load(MINIMAL)
    recipe["model"]["stack"] = [{"attention": {"use": "mha", "n_heads": 4}}]

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(recipe, schema)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("optimizer: {weight_decay: 0}", True),
        ("optimizer: [{use: adamw, params: matrix}, muon]", True),
        ("optimizer: {use: muon, rest: {use: adamw, eps: 1.0e-6}}", True),
        ("optimizer: {use: muon, rest: {use: adamw, epz: 1.0e-6}}", False),
        ("optimizer: []", False),
        ("norms: rmsnorm", False),
        ("seed: auto", True),
        ("seed: -1", False),
        ("data: strawberry/stdlib", True),
        ("data: nowhere", False),
    ],
)
def test_schema_agrees_with_the_loader(text, fits):
    """The schema takes what the loader takes, and complains where it complains."""
    schema = jsonschema.Draft202012Validator(json_schema(PLUGINS))

    assert schema.is_valid(yaml.safe_load(MINIMAL + text)) == fits


def test_schema_tells_what_fields_are_for():
    """Texts and defaults come from docstrings and signatures."""
    definitions = json_schema(PLUGINS)["$defs"]
    rest = definitions["optimizer:strawberry.muon"]["properties"]["rest"]

    assert definitions["attention:strawberry.mha"]["description"]
    assert rest["description"]
    assert {"$ref": "#/$defs/optimizer"} in rest["anyOf"]


def test_schema_file_is_current():
    """recipes/schema.json, which the recipes name, is what `strawberry schema` prints."""
    built_in = Plugins.load(disabled=["all"])

    assert json.loads((ROOT / "recipes/schema.json").read_text()) == json_schema(built_in)
