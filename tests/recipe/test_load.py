"""Loading: what extends what, overrides, patches, run folders."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from strawberry.errors import RecipeError, StrawberryError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe, patch
from strawberry.recipe.spec import BlockSpec, RecurSpec, RepeatSpec
from tests.recipe.conftest import BASE, Load, Wrong

RECIPES = Path(__file__).parents[2] / "recipes"
NOR = ", nor a packaged recipe of that name"


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=str)
def test_resolved_recipe_loads_to_an_equal_one(file: Path, folder: Path, plugins: Plugins) -> None:
    """What a run folder keeps of a recipe says the same as the recipe, as a file or a folder."""
    recipe = load_recipe(file, plugins=plugins)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())

    again = load_recipe(folder, plugins=plugins)

    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert load_recipe(folder / "recipe.yaml", plugins=plugins) == recipe


def test_importing_is_light() -> None:
    """Importing the package brings neither torch nor pydantic nor numpy."""
    code = (
        "import sys, strawberry.recipe, strawberry.recipe.schema\n"
        "print([m for m in ('torch', 'pydantic', 'numpy') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_extends(load: Load, folder: Path) -> None:
    """Mappings merge, lists and other components replace, and the name is not inherited."""
    (folder / "base").mkdir()
    (folder / "base" / "a.yaml").write_text(
        BASE + "optimizer: {use: adamw, eps: 1e-6}\ntrain: {max_iters: 7, batch_size: 3}\n"
    )

    recipe = load(
        "extends: base/a.yaml\n"
        "model: {n_embd: 32, norm: {eps: 1e-3}, stack: [{ffn: mlp}]}\n"
        "optimizer: {use: muon}\ntrain: {batch_size: 5}\n"
    )

    assert recipe.name == "r"
    assert (recipe.model.n_embd, recipe.model.vocab_size) == (32, 61)
    assert recipe.model.norm.fields["eps"] == 1e-3
    assert len(recipe.model.stack) == 1
    assert recipe.optimizer[0].component.use == "strawberry/muon"
    assert "eps" not in recipe.optimizer[0].component.fields
    assert (recipe.train.max_iters, recipe.train.batch_size) == (7, 5)


def test_inherited_values_keep_their_places(load: Load, wrong: Wrong, folder: Path) -> None:
    """A mistake in the extended file is blamed on that file."""
    (folder / "a.yaml").write_text(BASE.replace("n_embd: 16", "n_embd: x"))

    (line,) = wrong("extends: a.yaml\nmodel: {bias: true}\n")
    recipe = load("extends: a.yaml\nmodel: {n_embd: 8}\n")

    assert line.startswith("a.yaml:5:11: model.n_embd: ")
    assert str(recipe.model.at.fields["vocab_size"]) == "a.yaml:3:15"
    assert str(recipe.model.at.fields["n_embd"]) == "r.yaml:2:17"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.yaml", f"r.yaml:1:10: extends: no such file: 'nowhere.yaml'{NOR}"),
        ("[a]", "r.yaml:1:10: extends: expected the path of a recipe, relative to this one"),
        (".", f"r.yaml:1:10: extends: no such file: '.'{NOR}"),
        ('"a\\0b"', f"r.yaml:1:10: extends: no such file: 'a\\x00b'{NOR}"),
    ],
)
def test_wrong_extends(value: str, message: str, wrong: Wrong) -> None:
    """What can't be extended is said at its line."""
    assert wrong(f"extends: {value}\n") == [message]


def test_long_chain(wrong: Wrong, folder: Path) -> None:
    """A chain of recipes has an end."""
    for index in range(40):
        (folder / f"{index}.yaml").write_text(f"extends: {index + 1}.yaml\n")

    (line,) = wrong("extends: 0.yaml\n")

    assert line.endswith("a chain of more than 20 recipes")


def test_set_reaches_into_what_is_extended(load: Load, folder: Path) -> None:
    """Paths lead into lists and to all blocks; they apply last, and in order, at every level."""
    stack = "  stack: [{repeat: 2, attention: {use: mha, n_head: 2}}, {ffn: mlp}]\n"
    (folder / "a.yaml").write_text(
        f"model:\n  vocab_size: 8\n  block_size: 8\n  n_embd: 8\n{stack}"
    )
    (folder / "b.yaml").write_text("extends: a.yaml\nset: {'model.stack[0].repeat': 3}\n")
    recipe = load(
        "extends: b.yaml\nmodel: {n_embd: 16}\n"
        "set: {model.n_embd: 32, 'model.stack.*.attention.n_head': 4,\n"
        "      'model.stack[1].ffn': geglu}\n"
    )
    first, second = recipe.model.stack
    assert isinstance(first, RepeatSpec)
    assert isinstance(second, BlockSpec)
    assert first.count == 3
    assert [b.attention.fields["n_head"] for b in first.stack if b.attention] == [4]  # type: ignore[union-attr]
    assert second.ffn is not None
    assert second.ffn.use == "strawberry/geglu"
    assert recipe.model.n_embd == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set: 3\n", "r.yaml:2:6: set: expected paths as in `--set`, each with a value"),
        ("set: {'model.stack[9].ffn': mlp}\n",
         "r.yaml:2:29: set.model.stack[9].ffn: index [9] is out of range: the list has 1 entries"),
        ("set: {a b: 3}\n", "r.yaml:2:7: set.a b: expected a path such as"),
        ("set: {model.n_embd.x: 3}\n", "r.yaml:2:23: set.model.n_embd.x: nothing at 'x'"),
        ("set: {model.n_embdd: 3}\n", "r.yaml:2:22: model: the model has no 'n_embdd'; did you"),
        ("set: {model.n_embd: x}\n", "r.yaml:2:21: model.n_embd: expected a whole number, got"),
        ("set: {extends: b.yaml}\n",
         "r.yaml:2:16: extends: is allowed in a file, not in an override"),
    ],
)  # fmt: skip
def test_wrong_set(text: str, message: str, wrong: Wrong, folder: Path) -> None:
    """Each mistake is located in the file that says it."""
    (folder / "a.yaml").write_text(BASE)
    (line,) = wrong(f"extends: a.yaml\n{text}")
    assert line.startswith(message)


def test_set_without_extends(wrong: Wrong) -> None:
    """There is nothing then that it could change."""
    (line,) = wrong(f"{BASE}set: {{model.n_embd: 3}}\n")
    assert line.endswith(": set: needs `extends`, whose recipe it changes")


def test_missing_file(plugins: Plugins) -> None:
    """A file that is not there is the user's mistake."""
    with pytest.raises(
        StrawberryError, match=r"nowhere\.yaml: there is no such file, and no packaged"
    ):
        load_recipe("nowhere.yaml", plugins=plugins)


def test_overrides(load: Load) -> None:
    """Values are YAML, later ones win, and each kind of path leads somewhere."""
    recipe = load(
        BASE,
        [
            "model.n_embd=8",
            "model.n_embd=32",
            "model.stack[0].attention.n_head=2",
            "model.stack[0].repeat=3",
            "model.norm.eps=1e-3",
            "optimizer.lr=3e-4",
            "train={max_iters: 5, batch_size: 2}",
            "train.max_iters=6",
            "data=stdlib",
            "name=other",
        ],
    )

    (node,) = recipe.model.stack
    assert isinstance(node, RepeatSpec)
    assert node.count == 3
    (block,) = node.stack
    assert isinstance(block, BlockSpec)
    assert block.attention is not None
    assert block.attention.fields["n_head"] == 2
    assert recipe.model.n_embd == 32
    assert recipe.model.norm.fields["eps"] == 1e-3
    assert recipe.optimizer[0].component.fields["lr"] == 3e-4
    assert (recipe.train.max_iters, recipe.train.batch_size) == (6, 2)
    assert recipe.name == "other"


def test_star_means_all_blocks(plugins: Plugins) -> None:
    """`*` reaches the blocks at any depth: a part goes to all, a field to those with the part."""
    air = load_recipe(
        RECIPES / "original_air.yaml",
        ["model.stack.*.ffn=mlp", "model.stack[0].stack[0].ffn=none",
         "model.stack.*.ffn.n_ffn=32"],
        plugins=plugins,
    )  # fmt: skip

    (recur,) = air.model.stack
    assert isinstance(recur, RecurSpec)
    afts, last = recur.stack
    assert isinstance(afts, RepeatSpec)
    assert isinstance(last, BlockSpec)
    assert list(afts.stack[0].components) == ["attention"]
    assert last.ffn is not None
    assert last.ffn.fields["n_ffn"] == 32


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.n_emdb=3",
         "--set {}:1:14: model: the model has no 'n_emdb'; did you mean 'n_embd'?"),
        ("model.n_embd=x",
         "--set {}:1:14: model.n_embd: expected a whole number, got the text 'x'"),
        ("modle.n_embd=3", "--set {}:1:14: a recipe has no 'modle'; "
         "did you mean 'model'?"),
        ("model.stack[4].ffn=mlp",
         "--set {}:1:20: index [4] is out of range: the list has 1 entries"),
        ("model.stack.*.norm.eps=1", "--set {}:1:24: no block has 'norm'"),
        ("model.n_embd.x=3",
         "--set {}:1:16: nothing at 'x': it is the value 16"),
        ("model.stack.x=3", "--set {}:1:15: nothing at 'x': "
         "it is a list; write an index or *"),
        ("model[0]=3", "--set {}:1:10: no list to index with [0]"),
        ("n_embd", "--set {}:1:1: an override must be path=value, such as model.n_embd=128"),
        ("=3", "--set {}:1:1: an override must be path=value, such as model.n_embd=128"),
        ("a b=2", "--set {}:1:1: expected a path such as model.stack[0].attention, got 'a b'"),
        ("model.stack[-1].ffn=mlp", "--set {}:1:1: expected a path such as "
         "model.stack[0].attention, got 'model.stack[-1].ffn'"),
        ("model.n_embd=[1", "--set {}:1:16: expected ',' or ']', but got '<stream end>' "
         "(while parsing a flow sequence); quote it if it is text: "
         "--set 'model.n_embd=\"[1\"'"),
        ("extends=a.yaml", "--set {}:1:9: extends: is allowed in a file, not in an override"),
    ],
)  # fmt: skip
def test_wrong_overrides(override: str, message: str, wrong: Wrong) -> None:
    """A wrong override names itself and the column."""
    assert wrong(BASE, [override]) == [message.format(override)]


def test_all_wrong_overrides_at_once(wrong: Wrong) -> None:
    """Overrides that can't be applied are told together."""
    assert len(wrong(BASE, ["a b=1", "model.n_embd.x=3", "nothing"])) == 3


def test_patch(load: Load) -> None:
    """A patch makes a new recipe; the old one, its drawn seed and its places stay."""
    recipe = load("seed: auto\n" + BASE)

    wider = patch(recipe, {"model.n_embd": 32, "model.stack[0].ffn": {"use": "mlp", "n_ffn": 8}})
    named = patch(wider, ["model.norm=layernorm", "name=012x"])

    assert recipe.model.n_embd == 16
    assert recipe.seed == wider.seed == named.seed
    assert wider.model.n_embd == named.model.n_embd == 32
    assert named.model.norm.entry.name == "layernorm"
    assert named.name == "012x"
    assert patch(recipe, []) == recipe
    with pytest.raises(RecipeError, match=r"r\.yaml:9:26: model\.stack\[0\]\.ffn: .* no 'nffn'"):
        patch(load("seed: auto\n" + BASE.replace("swiglu", "{use: swiglu, nffn: 3}")), [])


def test_patch_takes_texts_as_they_are(load: Load) -> None:
    """In a mapping of overrides a text is a text, whatever YAML would make of it."""
    assert patch(load(BASE), {"name": "3e-4"}).name == "3e-4"


def test_patch_of_a_recipe_without_its_tree(load: Load) -> None:
    """A recipe that was made in Python is patched by way of its resolved form."""
    import dataclasses

    recipe = dataclasses.replace(load(BASE), tree=None)

    assert patch(recipe, ["model.n_embd=32"]).model.n_embd == 32


@pytest.mark.parametrize("text", ["*.txt", " *", "*a/b*.txt"])
def test_a_pattern_is_no_alias(tmp_path: Path, text: str) -> None:
    """An override that begins with * is a text: there is nothing that it could stand for."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {vocab_size: 300, block_size: 8, n_embd: 8, stack: [{ffn: swiglu}]}\ndata: text\n"
    )
    assert load_recipe(recipe, [f"data.path={text}"]).data.fields["path"] == text.strip()


@pytest.mark.parametrize("text", ["@x", "[ab].txt", "{a,b}.txt", "`x", '"a', "!x"])
def test_what_is_no_yaml_is_told_how_to_quote(tmp_path: Path, text: str) -> None:
    """An override that YAML can't read comes with the same one in quotes, which works."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {vocab_size: 300, block_size: 8, n_embd: 8, stack: [{ffn: swiglu}]}\ndata: text\n"
    )
    with pytest.raises(RecipeError, match=r"; quote it if it is text: --set ") as told:
        load_recipe(recipe, [f"data.path={text}"])
    _, _, advice = str(told.value).partition("quote it if it is text: --set ")
    (override,) = shlex.split(advice)
    assert load_recipe(recipe, [override]).data.fields["path"] == text


def test_a_pattern_in_a_file_is_told_to_be_quoted(tmp_path: Path) -> None:
    """A star that begins a text in a recipe's file does not speak of aliases alone."""
    recipe = tmp_path / "recipe.yaml"
    for text in ("*.txt", "*txt"):
        recipe.write_text(f"data: {{use: text, path: {text}}}\n")
        with pytest.raises(RecipeError, match=r"quote text that begins with \*"):
            load_recipe(recipe)
