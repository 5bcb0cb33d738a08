"""From a recipe to batches; every mistake in the data has its place in the recipe."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from strawberry.data import DataSource, Tokenizer, load_run_tokenizer, open_dataset, prepare
from strawberry.data.bpe import BPETokenizer, byte_tokenizer
from strawberry.errors import PluginError, RecipeError
from strawberry.recipe import load_recipe
from strawberry.recipe.spec import Recipe

TEXT = "".join(f"It was line {i} of {i * i}, or so they said.\n" for i in range(200))


def recipe(
    folder: Path, data: Any, tokenizer: Any = "bytes", plugins: Any = None, **model: Any
) -> Recipe:
    """A recipe file in that folder, with these sections a line each, loaded."""
    block = {"vocab_size": 300, "block_size": 16, "n_embd": 16, "stack": [{"ffn": "mlp"}], **model}
    sections = {"name": "test", "model": block, "data": data, "tokenizer": tokenizer}
    lines = [
        f"{name}: {yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]}\n"
        for name, value in sections.items()
    ]
    (folder / "recipe.yaml").write_text("".join(lines))
    return load_recipe(folder / "recipe.yaml", plugins=plugins)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text, in which nobody is."""
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def refusal(recipe: Recipe) -> str:
    """What is said of data that can't be had: one problem on one line, with a place."""
    with pytest.raises(RecipeError) as caught:
        open_dataset(recipe)
    (problem,) = caught.value.problems
    assert problem.location is not None
    assert "\n" not in str(problem)
    return str(problem).partition("recipe.yaml:")[2]


def test_text_by_learnt_bpe(folder: Path) -> None:
    """A text next to the recipe becomes batches under a BPE of the model's vocabulary."""
    dataset = open_dataset(recipe(folder, {"use": "text", "path": "text.txt"}, "bpe"))
    assert dataset.vocab_size == 300
    x, y = dataset.rows("train", 0, 2, block_size=16, seed=0)
    assert dataset.tokenizer is not None
    assert dataset.tokenizer.decode(x[0].tolist()) in TEXT
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    n_bytes = dataset.n_bytes("val", y)
    assert n_bytes == len(dataset.tokenizer.decode_bytes(y.ravel().tolist()))


def test_the_current_folder_comes_before_the_recipes(folder: Path) -> None:
    """A relative path is looked for where the user is, then where the recipe is."""
    made = recipe(folder, {"use": "text", "path": "text.txt"})
    near = open_dataset(made).fingerprint
    Path("text.txt").write_text(TEXT[::-1])
    assert open_dataset(made).fingerprint != near


def test_prepared_tokens_bring_their_tokenizer(folder: Path) -> None:
    """A prepared folder is read as it is, whatever the recipe says of tokenizers."""
    prepare([str(folder / "text.txt")], folder / "out", vocab_size=290)
    dataset = open_dataset(recipe(folder, {"use": "tokens", "path": "out"}))
    assert dataset.vocab_size == 290
    single = open_dataset(recipe(folder, {"use": "tokens", "path": "out/train.tok"}))
    assert single.tokenizer is not None
    assert dataset.tokenizer is not None
    assert single.tokenizer.fingerprint == dataset.tokenizer.fingerprint


def test_a_runs_tokenizer_comes_back(folder: Path) -> None:
    """What a run saves is read again by the recipe's own tokenizer source."""
    made = recipe(folder, {"use": "text", "path": "text.txt"}, "bpe")
    tokenizer = open_dataset(made).tokenizer
    assert tokenizer is not None
    tokenizer.save(folder / "run.json")
    assert load_run_tokenizer(folder / "run.json", made).fingerprint == tokenizer.fingerprint
    with pytest.raises(RecipeError, match="No such file"):
        load_run_tokenizer(folder / "none.json", made)


def test_a_tokenizer_of_ones_own(folder: Path) -> None:
    """A tokenizer.json that the recipe names is used instead of learning one."""
    learnt = open_dataset(recipe(folder, {"use": "text", "path": "text.txt"}, "bpe")).tokenizer
    assert learnt is not None
    learnt.save(folder / "mine.json")
    data = {"use": "text", "path": "text.txt", "data_division": 0.5}
    dataset = open_dataset(recipe(folder, data, {"use": "bpe", "path": "mine.json"}))
    assert dataset.tokenizer is not None
    assert dataset.tokenizer.fingerprint == learnt.fingerprint


@pytest.mark.parametrize(
    ("data", "tokenizer", "model", "message"),
    [
        ({"path": "gone.txt"}, "bytes", {}, "3:14: data.path: gone.txt: no such file or folder"),
        ({"path": "elsewhere"}, "bytes", {}, "3:14: data.path: elsewhere: no files of"),
        ({"path": "empty.txt"}, "bytes", {}, "3:14: data.path: {}/empty.txt: contains no text"),
        ({"path": "latin.txt"}, "bytes", {}, "3:14: data.path: {}/latin.txt:1: not UTF-8"),
        ({"path": "web.bin"}, "bytes", {}, "3:14: data.path: web.bin: a pickle or binary file"),
        ({"path": "none.bin"}, "bytes", {}, "3:14: data.path: none.bin: a pickle or binary file"),
        ({"path": "short.txt"}, "bytes", {}, "3:7: data: the train split has 5 tokens, but"),
        ({"path": "text.txt"}, "bytes", {"vocab_size": 256}, "2:70: model.vocab_size: the straw"),
        ({"path": "text.txt"}, {"use": "bpe", "path": "x.bin"}, {}, "4:19: tokenizer.path: x.bin"),
        ({"path": "text.txt"}, {"use": "bpe", "path": "x.json"}, {}, "4:19: tokenizer.path: x.js"),
        ({"path": "text.txt"}, {"use": "bpe", "pattern": "(["}, {}, "4:22: tokenizer.pattern: "),
        ({"path": "text.txt"}, {"use": "bpe", "vocab_size": 260}, {}, "4:35: tokenizer.v"),
        ({"path": "text.txt"}, "bpe", {"vocab_size": 99}, "4:12: tokenizer.vocab_size: "),
        ({"use": "tokens", "path": "gone"}, "bytes", {}, "3:14: data.path: gone: no such file"),
    ],
)
def test_each_mistake_has_its_place(
    folder: Path, data: dict[str, Any], tokenizer: Any, model: dict[str, Any], message: str
) -> None:
    """Whatever is wrong with the data is one line that begins with line and column."""
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "short.txt").write_text("tiny\n")
    (folder / "web.bin").write_bytes(pickle.dumps({"dataset": [[1, 2]]}))
    said = refusal(recipe(folder, {"use": "text", **data}, tokenizer, **model))
    assert said.startswith(message.format(folder))


def test_a_vocabulary_that_does_not_fit_is_the_models_line(folder: Path) -> None:
    """Ids that the model has no embedding for are refused where its vocabulary is written."""
    data = {"use": "text", "path": "text.txt"}
    said = refusal(recipe(folder, data, vocab_size=256))
    assert "model.vocab_size: the strawberry/bytes tokenizer has a vocabulary of 257" in said
    prepare([str(folder / "text.txt")], folder / "out", vocab_size=290)
    said = refusal(recipe(folder, {"use": "tokens", "path": "out"}, vocab_size=280))
    assert "the strawberry/tokens data has a vocabulary of 290, larger than the model's 280" in said


def test_a_damaged_prepared_folder_is_refused_by_name(folder: Path) -> None:
    """What the user prepared is theirs: it is not repaired behind their back."""
    prepare([str(folder / "text.txt")], folder / "out", vocab_size=290)
    path = folder / "out" / "val.tok"
    path.write_bytes(path.read_bytes()[:-2])
    said = refusal(recipe(folder, {"use": "tokens", "path": "out"}))
    assert f"data.path: {path}: " in said
    assert "truncated or overwritten" in said


def test_a_component_that_is_no_source_is_the_plugins_fault(folder: Path) -> None:
    """A data component that is no data source is refused with the line of its class."""
    from strawberry.plugin import Plugins

    (folder / "mine.py").write_text(
        "from strawberry.plugin import hookimpl\n"
        "class Odd:\n    def __init__(self): pass\n"
        "@hookimpl\ndef strawberry_register(registry):\n    registry.data('odd', Odd)\n"
    )
    plugins = Plugins.load(files=[folder / "mine.py"])
    with pytest.raises(RecipeError, match=r"Odd \(.*mine.py:2\) is not a DataSource"):
        open_dataset(recipe(folder, "odd", plugins=plugins))


def test_nothing_here_needs_torch() -> None:
    """Data can be prepared without importing torch, which takes longer than preparing it."""
    program = (
        "import sys, strawberry.data, strawberry.components.data.text\n"
        "import strawberry.components.tokenizer.bpe\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_sources_say_what_is_missing() -> None:
    """The contract can't be half implemented."""
    with pytest.raises(TypeError, match="abstract"):
        DataSource()  # type: ignore[abstract]


class Wrong(BPETokenizer):
    """Bytes, but for what is set."""

    given: ClassVar[list[Any]] = []

    def encode(self, text: str, special: bool = False) -> list[Any]:
        """What was set."""
        return self.given

    encode_batch = Tokenizer.encode_batch


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 300], "returned id 300, outside its vocabulary of 257"),
        ([-1, 3], "returned id -1, outside its vocabulary of 257"),
        ([1.5, 2.0], "ids must be whole numbers, got float64, such as 1.5"),
        (["a"], "ids must be whole numbers, got"),
        ([[1, 2]], "ids must be whole numbers, got"),
    ],
)
def test_a_tokenizer_that_gives_no_ids_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: list[Any], message: str
) -> None:
    """Ids outside its vocabulary, or not whole, are one line with the plugin's name."""
    made = Wrong([bytes([b]) for b in range(256)], ["<|eot|>"], None)
    monkeypatch.setattr(Wrong, "given", given)
    monkeypatch.setattr("strawberry.components.tokenizer.bytes.byte_tokenizer", lambda _: made)
    with pytest.raises(PluginError, match=f"^tokenizer strawberry/bytes: {message}") as told:
        open_dataset(recipe(folder, {"use": "text", "path": "text.txt"}, "bytes"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("name", "value"), [("eot", 257), ("eot", 1.0), ("vocab_size", 2.5)])
def test_a_tokenizer_whose_end_is_none_of_its_ids_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    """Before any text is encoded."""
    made = byte_tokenizer(["<|eot|>"])
    monkeypatch.setattr(made, name, value)
    monkeypatch.setattr("strawberry.components.tokenizer.bytes.byte_tokenizer", lambda _: made)
    with pytest.raises(PluginError, match=f"^tokenizer strawberry/bytes: {name} must be "):
        open_dataset(recipe(folder, {"use": "text", "path": "text.txt"}, "bytes"))
