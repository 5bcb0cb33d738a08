"""The recipe guide: its examples load, and it leaves no key out."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from strawberry.plugin import Plugins
from strawberry.plugin.kinds import Kinds
from strawberry.plugin.signature import fields_of
from strawberry.recipe import load_recipe, patch
from strawberry.recipe.fields import ModelFields, TrainFields
from strawberry.recipe.grammar import FILE_KEYS, entry_keys, recipe_keys

RECIPES = Path(__file__).parents[2] / "recipes"
GUIDE = (RECIPES / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
EXAMPLES = [text for language, text in BLOCKS if language == "yaml"]
COMMANDS = [
    line
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.startswith("strawberry build")
]


def test_there_are_examples() -> None:
    """The patterns above find what they are meant to find."""
    assert len(EXAMPLES) >= 5
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_load(text: str, folder: Path, plugins: Plugins) -> None:
    """Each example is a recipe, or a part that fits into one."""
    for file in RECIPES.glob("*.yaml"):
        (folder / file.name).write_text(file.read_text())
    if text.startswith("- "):
        text = "model:\n  stack:\n" + "".join(f"    {line}\n" for line in text.splitlines())
    if "extends:" not in text and "vocab_size:" not in text:
        text = f"extends: original_air.yaml\n{text}"
    (folder / "example.yaml").write_text(text)

    assert load_recipe("example.yaml", plugins=plugins).model.stack


@pytest.mark.parametrize("command", COMMANDS)
def test_overrides_apply(command: str, plugins: Plugins) -> None:
    """Each command's overrides are possible."""
    words = shlex.split(command)
    overrides = [after for word, after in itertools.pairwise(words) if word == "--set"]

    assert load_recipe(RECIPES.parent / words[2], overrides, plugins=plugins)


def test_python_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the Python API runs."""
    (text,) = (text for language, text in BLOCKS if language == "python")
    monkeypatch.chdir(RECIPES.parent)
    names: dict[str, object] = {}

    exec(text, names)

    assert names["patch"] is patch
    assert names["wider"].model.n_embd == 256  # type: ignore[attr-defined]


def test_no_key_is_left_out() -> None:
    """Every key of every section is in a table of the guide."""
    sections = [field.name for cls in (ModelFields, TrainFields) for field in fields_of(cls)]
    keys = recipe_keys(Kinds()) | entry_keys(Kinds())

    missing = [
        key
        for key in (*keys, *FILE_KEYS, "params", *sections)
        if not re.search(rf"^\|.*`{key}[`.]|`{key}`", GUIDE, flags=re.MULTILINE)
    ]

    assert missing == []
