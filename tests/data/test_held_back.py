"""The locked test split: what is in it, that it takes nothing from validation, and its lock."""

import json
from pathlib import Path

import numpy as np
import pytest

from strawberry.contracts.data import EVERY, TEST, DataSite, Split
from strawberry.data import FileCorpus, load_tokenizer, open_dataset, read_documents
from strawberry.data.packed import PackedDataset, hold_back
from strawberry.data.stream import IdStream
from strawberry.errors import RecipeError, StrawberryError
from strawberry.files.storage import FileFingerprints
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.recipe.spec import Recipe

LLAMA = Path(__file__).parents[2] / "recipes/llama.yaml"


def corpus(path: Path, test: float) -> FileCorpus:
    return FileCorpus(
        [path],
        read_documents,
        reader="test",
        data_division=0.9,
        test_division=test,
        identities=FileFingerprints(path.parent / "cache"),
    )


def split_up(made: FileCorpus) -> dict[Split, list[str]]:
    return {split: list(made.documents(split)) for split in made.splits}


def test_documents_are_held_back_whole(tmp_path: Path) -> None:
    """Validation is the same text; test documents are whole, in no other split, about a share."""
    texts = [f"document {n} " + "word " * (n % 7 + 3) for n in range(400)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, texts)))
    plain, held = split_up(corpus(path, 0)), corpus(path, 0.05)
    splits = split_up(held)
    assert splits["val"] == plain["val"]
    assert set(splits[TEST]) < set(texts)
    assert not set(splits[TEST]) & {*splits["train"], *splits["val"]}
    sizes = {s: sum(len(t.encode()) for t in found) for s, found in splits.items()}
    assert {s: held.n_bytes(s) for s in EVERY} == sizes
    assert sum(sizes.values()) == sum(map(len, texts))
    assert 0.04 < sizes[TEST] / sum(map(len, texts)) <= 0.05
    assert corpus(path, 0).fingerprint != held.fingerprint


def test_one_document_is_cut_in_three(tmp_path: Path) -> None:
    """Its end is validation, as without a test split; what comes before that is the test."""
    path = tmp_path / "a.txt"
    text = "".join(f"line {n}\n" for n in range(2000))
    path.write_text(text)
    plain, splits = split_up(corpus(path, 0)), split_up(corpus(path, 0.05))
    assert splits["val"] == plain["val"]
    assert "".join(splits["train"] + splits[TEST] + splits["val"]) == text
    assert abs(len(splits[TEST][0]) / len(text) - 0.05) < 0.01


@pytest.mark.parametrize("cut", [3, 30, 61, 99])
def test_ids_are_held_back_by_document(cut: int) -> None:
    """Both sides end with a document, and no document is on both; without `eot` it is a cut."""
    ids = np.array([9 if n % 10 == 9 else n % 8 for n in range(120)])
    train, test = (np.concatenate([*s.parts]) for s in hold_back(IdStream([ids]), 120 - cut, 9))
    assert train[-1] == test[-1] == 9
    assert train.size % 10 == test.size % 10 == 0
    assert cut <= train.size <= cut + 10
    assert [s.size for s in hold_back(IdStream([ids]), 20, None)] == [100, 20]


def recipe(data: str) -> Recipe:
    sets = ["model.n_embd=16", "model.block_size=16", "tokenizer=bytes", f"data={data}"]
    return load_recipe(LLAMA, [*sets, "model.vocab_size=257"], plugins=Plugins.load())


DATA = [
    "{use: stdlib, max_bytes: 100000, test_division: 0.05}",
    "{use: text, path: FOLDER/a.txt, test_division: 0.05}",
    "{use: shards, path: FOLDER/bins/*.bin, test_division: 0.05}",
    "{use: shards, path: FOLDER/named}",
    "{use: synthetic, task: modular_sums}",
]


@pytest.mark.parametrize("data", DATA)
def test_every_source_locks_it(data: str, tmp_path: Path) -> None:
    """Opened as training opens it no row or id is given; opened for the test they differ from val.

    Without the field, validation has the same rows.
    """
    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(2000)))
    ids = np.random.default_rng(0).integers(0, 250, 8000).astype("<u2")
    for folder, names in (("bins", ["a"]), ("named", ["train", "val", "test"])):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            (ids + number).tofile(tmp_path / folder / f"{name}.bin")
    made = recipe(data.replace("FOLDER", str(tmp_path)))
    asked = {"block_size": 16, "seed": 1}
    sealed = open_dataset(made, cache=tmp_path / "cache")
    assert sealed.splits == EVERY
    for reading in (lambda: sealed.rows(TEST, 0, 2, **asked), lambda: sealed.arrays(TEST)):
        with pytest.raises(StrawberryError, match="the test split is locked"):
            reading()
    opened = open_dataset(made, cache=tmp_path / "cache", test=True)
    rows = {s: opened.rows(s, 0, 8, **asked)[0].tolist() for s in EVERY}
    assert not any(row in rows["val"] or row in rows["train"] for row in rows[TEST])
    assert (opened.rows_in(TEST, 16) or 0) > 0
    plain = data.replace("FOLDER", str(tmp_path)).replace(", test_division: 0.05", "")
    without = open_dataset(recipe(plain), cache=tmp_path / "cache")
    assert without.rows("val", 0, 8, **asked)[0].tolist() == rows["val"]


def test_a_share_must_leave_training(tmp_path: Path) -> None:
    """More than training has can't be held back, and the message is at the field."""
    data = "{use: stdlib, data_division: 0.1, test_division: 0.2}"
    with pytest.raises(RecipeError, match=r"less than data_division 0\.1"):
        open_dataset(recipe(data), cache=tmp_path / "cache")


def test_a_prepared_folder_has_it_too(tmp_path: Path) -> None:
    """`data prepare` writes a third file, which the folder's data set reads."""
    from strawberry.components.data.tokens import Tokens
    from strawberry.data import prepare

    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(2000)))
    out = tmp_path / "out"
    prepare([str(tmp_path / "a.txt")], out, vocab_size=300, test_division=0.1, cache=tmp_path)
    site = DataSite(300, 8, 0, tmp_path / "cache", (tmp_path,), lambda _: load_tokenizer(out))
    dataset = Tokens(site, path=str(out)).open()
    assert isinstance(dataset, PackedDataset)
    assert dataset.splits == EVERY
    assert "test" in Tokens(site, path=str(out)).divided()
