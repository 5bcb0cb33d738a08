"""Documents come out of columns, whole and in order; every mistake is at its place."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import strawberry
from strawberry.contracts import SPLITS
from strawberry.data import Dataset, open_dataset
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("datasets")

from strawberry_hf.arrow import read_column  # noqa: E402

CAFE = "caf\u00e9 "
TEXTS = [f"document {i}: {CAFE * (i % 7)}end" for i in range(60)]
README = """---
configs:
- config_name: en
  data_files:
  - {split: train, path: en/train-*}
  - {split: test, path: en/test-*}
- config_name: de
  data_files:
  - {split: train, path: de/train-*}
---
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Caches of this test's own, no network, and no progress bars."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A folder in the hub's layout: configurations en, with two splits, and de."""
    for name, texts in (("en/train-0", TEXTS), ("en/test-0", TEXTS[:9]), ("de/train-0", TEXTS[9:])):
        file = tmp_path / "hub" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(texts), file)
    (tmp_path / "hub" / "README.md").write_text(README)
    return tmp_path / "hub"


def table(texts: list[str | None]) -> Any:
    """A table with a column of numbers beside the texts."""
    return pa.table({"text": texts, "number": range(len(texts))})


def opened(plugins: Plugins, **fields: Any) -> Dataset:
    """The data set of a recipe with these fields."""
    recipe = {
        "name": "test",
        "model": {"vocab_size": 257, "block_size": 8, "n_embd": 8, "stack": [{"ffn": "swiglu"}]},
        "tokenizer": "bytes",
        "data": {"use": "datasets", **fields},
    }
    Path("recipe.yaml").write_text(json.dumps(recipe))
    return open_dataset(strawberry.load_recipe("recipe.yaml", plugins=plugins))


def n_bytes(dataset: Dataset) -> int:
    """Tokens in all, with the tokenizer `bytes`; one document is cut, and may so end twice."""
    return sum(dataset.n_tokens(split) or 0 for split in SPLITS)


def write(file: Path, form: str) -> None:
    """The texts in a file of that form."""
    rows = table(TEXTS)
    if form == "parquet":
        pq.write_table(rows, file, row_group_size=7)
    elif form == "stream":
        with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=7)
    elif form == "arrow":
        with pa.OSFile(str(file), "wb") as out, pa.ipc.new_file(out, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=7)
    elif form == "dictionary":
        coded = rows.set_column(0, "text", rows["text"].dictionary_encode())
        pq.write_table(coded, file)
    elif form == "large":
        pq.write_table(rows.set_column(0, "text", rows["text"].cast(pa.large_string())), file)
    else:
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("parquet", "parquet"), ("stream", "arrow"), ("arrow", "arrow"), ("dictionary", "parquet"),
     ("large", "parquet"), ("jsonl", "jsonl")],
)  # fmt: skip
def test_every_form_holds_the_same(
    form: str, suffix: str, plugins: Plugins, tmp_path: Path
) -> None:
    """Parquet, both forms of Arrow and lines of JSON give the documents, in order."""
    write(tmp_path / f"a.{suffix}", form)
    assert list(read_column(tmp_path / f"a.{suffix}", "text")) == TEXTS
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    ours = opened(plugins, files=f"a.{suffix}")
    builtin = opened(plugins, use="text", path="text.jsonl")
    assert ours.fingerprint == builtin.fingerprint
    ids, _ = ours.rows("train", 0, 4, block_size=8, seed=0)
    assert ours.n_bytes("train", ids) == builtin.n_bytes("train", ids)


def test_splits_of_the_hub_are_validation_and_test(plugins: Plugins, hub: Path) -> None:
    """`val` and `test` take a data set's own splits whole; training is all of `split`."""
    dataset = opened(plugins, path=str(hub), name="en", val="test", test="train[:3]")
    assert list(dataset.texts("train") or ()) == TEXTS
    assert list(dataset.texts("val") or ()) == TEXTS[:9]
    assert dataset.n_tokens("test") == sum(len(text.encode()) + 1 for text in TEXTS[:3])
    alone = opened(plugins, path=str(hub), name="en", split="train[5:]", val="test")
    assert list(alone.texts("train") or ()) == TEXTS[5:]
    assert alone.splits == SPLITS
    with pytest.raises(RecipeError, match=r"data\.val: .*validation"):
        opened(plugins, path=str(hub), name="en", val="validation")


def test_local_files_are_held_out(plugins: Plugins, tmp_path: Path) -> None:
    """With `files`, `val` names files too, which are left out of training."""
    pq.write_table(table(TEXTS[:40]), tmp_path / "a-0.parquet")
    pq.write_table(table(TEXTS[40:]), tmp_path / "a-1.parquet")
    dataset = opened(plugins, files="a-*.parquet", val="a-1.parquet")
    assert list(dataset.texts("train") or ()) == TEXTS[:40]
    assert list(dataset.texts("val") or ()) == TEXTS[40:]
    with pytest.raises(RecipeError, match=r"data\.val: .*no such file"):
        opened(plugins, files="a-*.parquet", val="b.parquet")


def test_validation_is_the_same_text_whatever_the_files(plugins: Plugins, tmp_path: Path) -> None:
    """In one file or in several, documents and their division are the same; nulls are none."""
    pq.write_table(table([*TEXTS[:20], None, ""]), tmp_path / "a-0.parquet")
    pq.write_table(table(TEXTS[20:]), tmp_path / "a-1.parquet")
    pq.write_table(table(TEXTS), tmp_path / "whole.parquet")
    several, one = opened(plugins, files="a-*.parquet"), opened(plugins, files="whole.parquet")
    assert several.fingerprint == one.fingerprint
    assert several.n_tokens("val") == one.n_tokens("val")
    (tmp_path / "folder").mkdir()
    (tmp_path / "whole.parquet").rename(tmp_path / "folder" / "a.parquet")
    assert opened(plugins, files="folder").fingerprint == one.fingerprint


def test_other_content_is_another_data_set(plugins: Plugins, tmp_path: Path) -> None:
    """The fingerprint follows the content, not the name."""
    pq.write_table(table(TEXTS), tmp_path / "a.parquet")
    first = opened(plugins, files="a.parquet").fingerprint
    pq.write_table(table([*TEXTS[:-1], "another"]), tmp_path / "a.parquet")
    assert opened(plugins, files="a.parquet").fingerprint != first


@pytest.mark.parametrize(
    ("name", "split", "rows"),
    [
        ("en", "train", TEXTS),
        ("de", "train", TEXTS[9:]),
        ("en", "test", TEXTS[:9]),
        ("en", "train[:10]", TEXTS[:10]),
        ("en", "train[10:20]", TEXTS[10:20]),
        ("en", "train+test", TEXTS + TEXTS[:9]),
    ],
)
def test_a_selection_of_the_hub(
    name: str, split: str, rows: list[str], hub: Path, plugins: Plugins, tmp_path: Path
) -> None:
    """Configuration, split, parts and sums of splits select the rows that they name."""
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(text) + "\n" for text in rows))
    chosen = opened(plugins, path="hub", name=name, split=split, data_division=0.5)
    same = opened(plugins, use="text", path="same.jsonl", data_division=0.5)
    assert chosen.fingerprint == same.fingerprint
    assert n_bytes(chosen) - sum(len(text.encode()) + 1 for text in rows) in (0, 1)


def test_a_cached_selection_needs_no_reading(
    hub: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened again, the ids come from the cache, and the rows are not gone through."""
    first = opened(plugins, path="hub", name="en")

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("read again")

    time.sleep(0.15)  # notes are trusted once the file clock has moved on
    opened(plugins, path="hub", name="en")
    monkeypatch.setattr("strawberry_hf.data.texts", refuse)
    assert opened(plugins, path="hub", name="en").fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"data.path: give either `path`, .* or local `files`"),
        ({"path": "hub", "files": "a.parquet"}, "data.path: give either"),
        ({"files": "a.parquet", "split": "test"}, "data.split: local files have none"),
        ({"files": "a.parquet", "name": "en"}, "data.name: local files have none"),
        ({"files": "none.parquet"}, "data.files: none.parquet: no such file or folder"),
        ({"files": "a.parquet", "field": "body"}, "data.field: .*no column 'body'; it has text"),
        ({"files": "a.parquet", "field": "number"}, "data.field: .*'number' holds int64, not text"),
        ({"files": "recipe.yaml"}, r"data.files: .*not a file of columns \(.parquet, .arrow, .jso"),
        ({"files": "bad.parquet"}, "data.files: .*bad.parquet: damaged, or not what its name says"),
        ({"files": "bad.arrow"}, "data.files: .*bad.arrow: damaged, or not what its name says"),
        ({"files": "bad.jsonl"}, "data.files: .*bad.jsonl:2: expected text, got a int"),
        ({"path": "hub"}, r"data.name: hub: Config name is missing.*\['en', 'de'\]"),
        ({"path": "hub", "name": "fr"}, r"data.name: hub: .*'fr' not found.*\['en', 'de'\]"),
        ({"path": "hub", "name": "en", "split": "val"}, r"data.split: hub: .*\['train', 'test'\]"),
        ({"path": "hub", "name": "en", "field": "body"}, "data.field: hub: no column 'body'"),
        ({"path": "./nothing"}, "data.path: ./nothing: no such folder; files go under `files:`"),
        ({"path": "nobody/nothing"}, "data.path: nobody/nothing: .*`files:` .*HF_HUB_OFFLINE=1"),
    ],
)
def test_mistakes_are_located(
    fields: dict[str, Any], message: str, hub: Path, plugins: Plugins, tmp_path: Path
) -> None:
    """Each is one line at the field that is wrong, and says what would be right."""
    pq.write_table(table(TEXTS), tmp_path / "a.parquet")
    (tmp_path / "bad.parquet").write_text("junk")
    (tmp_path / "bad.arrow").write_text("junk and more junk")
    (tmp_path / "bad.jsonl").write_text('"fine"\n3\n')
    with pytest.raises(RecipeError, match=message) as caught:
        opened(plugins, **fields)
    (problem,) = caught.value.problems
    assert problem.location
    assert "\n" not in str(caught.value)


@pytest.mark.component("data/datasets", files="plenty.parquet")
def test_conforms(component_check: Any, tmp_path: Path) -> None:
    """Batches are a function of the step, drawn and divided as they should be."""
    pq.write_table(table([f"{i} berries, {i * i} plums\n" for i in range(400)]), "plenty.parquet")
    component_check()


def test_the_manifest_is_light() -> None:
    """Neither the manifest nor the component imports a library before it is used."""
    code = (
        "import sys, strawberry_hf.plugin; "
        "heavy = {'torch', 'datasets', 'transformers', 'pyarrow'}; "
        "assert not heavy & set(sys.modules); import strawberry_hf.data, strawberry_hf.arrow; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl.gz", "hub"])
def test_nested_fields(tmp_path: Path, plugins: Plugins, form: str) -> None:
    """A field of a structure is named with dots; nulls at any level are left out and counted."""
    rows = [{"meta": {"text": text, "n": 1}} for text in TEXTS]
    rows += [{"meta": None}, {"meta": {"text": None, "n": 2}}]
    nested = pa.Table.from_pylist(rows)
    file = tmp_path / ("hub/data.parquet" if form == "hub" else f"rows.{form}")
    file.parent.mkdir(exist_ok=True)
    if form in ("parquet", "hub"):
        pq.write_table(nested, file)
    elif form == "arrow":
        with pa.OSFile(str(file), "wb") as out, pa.ipc.new_file(out, nested.schema) as writer:
            writer.write_table(nested)
    else:
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    where = {"path": "./hub"} if form == "hub" else {"files": file.name}
    dataset = opened(plugins, **where, field="meta.text")
    assert dataset.notes == ("2 of 62 documents are empty or null and were left out",)
    whole = sum(len(text.encode()) + 1 for text in TEXTS)
    assert n_bytes(dataset) in (whole, whole + 1)
    if form != "jsonl.gz":
        with pytest.raises(RecipeError, match=r"no column 'meta\.txt'; meta holds struct"):
            opened(plugins, **where, field="meta.txt")
