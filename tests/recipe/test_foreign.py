"""Files of other programs, which a plugin reads as recipes."""

from pathlib import Path

import pytest

from strawberry.errors import PluginError, RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import Recipe, load_recipe

READER = """
from strawberry.errors import Problem, RecipeError
from strawberry.plugin import hookimpl
from strawberry.recipe import located


@hookimpl
def strawberry_recipe_tree(tree, path):
    if tree.get("model_type") is None:
        return None
    if tree.get("width") is None:
        raise RecipeError([Problem("width is missing", tree.location)])
    sizes = {"vocab_size": 61, "block_size": 16, "n_embd": tree.get("width")}
    model = {**sizes, "stack": [{"ffn": "swiglu"}]}
    return located({"model": model}, tree.location), [f"read from {path.name}"]
"""


def load(folder: Path, text: str, *sources: str) -> Recipe:
    """The recipe of a file with this text, with plugins of these sources."""
    files = []
    for number, source in enumerate(sources):
        files.append(folder / f"reader{number}.py")
        files[-1].write_text(source)
    path = folder / "config.json"
    path.write_text(text)
    return load_recipe(path, plugins=Plugins.load(files=files, disabled=["all"]))


def test_a_plugin_reads_a_file(tmp_path: Path) -> None:
    """Its values and notes are the recipe's; an error is at the value's own place."""
    recipe = load(tmp_path, '{"model_type": "x", "width": 16}', READER)
    assert recipe.model.n_embd == 16
    assert recipe.notes == ("read from config.json",)
    with pytest.raises(RecipeError, match=r"config\.json:2:11: model\.n_embd"):
        load(tmp_path, '{"model_type": "x",\n "width": "wide"}', READER)
    with pytest.raises(RecipeError, match=r"config\.json:1:1: width is missing"):
        load(tmp_path, '{"model_type": "x"}', READER)


def test_a_recipe_is_asked_of_nobody(tmp_path: Path) -> None:
    """Where `model` stands the file is a recipe, whatever else is in it."""
    broken = READER.replace('if tree.get("model_type") is None', "1 / 0\n    if True")
    text = '{"model": {"vocab_size": 61, "block_size": 16, "n_embd": 16, "stack": []}}'
    with pytest.raises(RecipeError, match="stack"):
        load(tmp_path, text, broken)
    with pytest.raises(PluginError, match=r"reader0.*ZeroDivisionError"):
        load(tmp_path, "{}", broken)


def test_two_readers_of_one_file_are_told(tmp_path: Path) -> None:
    """Neither wins; the line says how to choose."""
    with pytest.raises(RecipeError, match="'reader1' and 'reader0' both read this file"):
        load(tmp_path, '{"model_type": "x", "width": 16}', READER, READER)


def test_an_answer_that_is_none_is_told(tmp_path: Path) -> None:
    """A plugin that answers with something else is named."""
    odd = READER.replace("return located", "return 3 or located")
    with pytest.raises(PluginError, match=r"plugin 'reader0'.*answered"):
        load(tmp_path, '{"model_type": "x", "width": 16}', odd)


def test_a_file_of_another_program_is_one_line(tmp_path: Path) -> None:
    """Without a plugin that reads it, the error names what to install, not every key."""
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, '{"model_hyperparams": {"n_embd": 8}, "dataset": {}, "train": {}}')
    (problem,) = caught.value.problems
    assert "of its 3 keys a recipe knows 1" in problem.message
    assert "pip install strawberry-original" in problem.message
