"""Mixtures, epochs, held-out files and folders that grow."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch.nn import functional

import strawberry
from strawberry.contracts.data import Dataset, Ids, Split
from strawberry.data import open_dataset, prepare
from strawberry.data.bpe import byte_tokenizer
from strawberry.data.epochs import EpochsDataset, shuffled
from strawberry.data.mixed import BLOCK, MixedDataset, block_counts
from strawberry.data.overlap import overlap
from strawberry.data.packed import PackedDataset
from strawberry.data.stream import IdStream
from strawberry.errors import RecipeError, StrawberryError
from strawberry.plugin import Plugins
from strawberry.ranks.world import World
from strawberry.recipe import Recipe
from strawberry.runs.device import machine_for
from strawberry.training.batches import Batches
from strawberry.training.engine import Engine
from strawberry.training.evaluate import validate

ROOT = Path(__file__).parents[2]
T = 4


def numbered(begin: int, size: int, *, val: int = 60) -> PackedDataset:
    """Ids that count up from `begin`; those of validation go on."""
    ids: dict[Split, IdStream] = {
        "train": IdStream([np.arange(begin, begin + size)]),
        "val": IdStream([np.arange(begin + size, begin + size + val)]),
    }
    return PackedDataset(ids, None, vocab_size=100_000, fingerprint=f"{begin}", tokenizer=None)


def rows(dataset: Dataset, first: int, count: int, split: Split = "train", seed: int = 1) -> Ids:
    """The inputs of rows."""
    return dataset.rows(split, first, count, block_size=T, seed=seed)[0]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100, 1025])
def test_a_shuffle_has_every_number_once(size: int) -> None:
    """For every size, seed and turn; another seed or turn is another order."""
    numbers = np.arange(size, dtype=np.int64)
    orders = [shuffled(numbers, size, seed, turn).tolist() for seed in (0, 9) for turn in (0, 1)]
    assert all(sorted(order) == list(range(size)) for order in orders)
    if size >= 100:
        assert len({tuple(order) for order in orders}) == 4
        # Neighbours are no nearer than by chance: a third of the size on average.
        gaps = np.abs(np.diff(orders[0])).mean() / size
        assert gaps == pytest.approx(1 / 3, abs=0.12)


def test_an_epoch_has_every_window_once() -> None:
    """Each id but the first is predicted once, and the next epoch has another order."""
    epochs = EpochsDataset(numbered(0, 43))
    assert epochs.windows(T) == 10
    inputs, targets = epochs.rows("train", 0, 20, block_size=T, seed=3)
    assert np.array_equal(inputs + 1, targets)
    for half in (targets[:10], targets[10:]):
        assert sorted(half.flatten().tolist()) == list(range(1, 41))
    assert not np.array_equal(inputs[:10], inputs[10:])
    assert np.array_equal(epochs.rows("train", 7, 6, block_size=T, seed=3)[0], inputs[7:13])
    assert np.array_equal(rows(epochs, 0, 3, "val"), rows(epochs.of, 0, 3, "val"))


def test_a_mixture_has_its_shares_in_each_block() -> None:
    """3:1 of every 4,096 rows, and any range of rows is a part of the same sequence."""
    mixed = MixedDataset([numbered(0, 900), numbered(50_000, 900)], [3, 1])
    whole = rows(mixed, 0, 2 * BLOCK)
    first = whole[:, 0] < 50_000
    assert [int(first[:BLOCK].sum()), int(first[BLOCK:].sum())] == [BLOCK * 3 // 4] * 2
    # In random order, so that no stretch is far from its share: 4 deviations of a binomial one.
    assert abs(first[:400].mean() - 0.75) < 4 * (0.75 * 0.25 / 400) ** 0.5
    for begin, count in ((0, 1), (5, 40), (BLOCK - 3, 9)):
        assert np.array_equal(rows(mixed, begin, count), whole[begin : begin + count])
    assert not np.array_equal(rows(mixed, 0, 50, seed=2), whole[:50])


def test_parts_of_a_mixture_go_on_where_they_were() -> None:
    """With epochs, each source's windows come once before any comes twice."""
    parts = [EpochsDataset(numbered(0, 4 * 30 + 1)), EpochsDataset(numbered(50_000, 4 * 50 + 1))]
    mixed = MixedDataset(parts, [1, 2])
    starts = rows(mixed, 0, 3 * BLOCK)[:, 0]
    for begin, end, windows in ((0, 50_000, 30), (50_000, 100_000, 50)):
        mine = starts[(begin <= starts) & (starts < end)]
        for epoch in range(3):
            assert len(set(mine[epoch * windows : (epoch + 1) * windows].tolist())) == windows


def test_validation_of_a_mixture_repeats_no_row() -> None:
    """It has the shares too, is the same for every seed, and ends before a row comes twice."""
    mixed = MixedDataset([numbered(0, 900, val=81), numbered(50_000, 900, val=401)], [1, 1])
    size = mixed.rows_in("val", T)
    assert size is not None
    starts = rows(mixed, 0, size, "val")[:, 0]
    assert len(set(starts.tolist())) == size
    assert len(set(rows(mixed, 0, size + 1, "val")[:, 0].tolist())) == size
    assert int((starts < 50_000).sum()) == 20
    assert np.array_equal(rows(mixed, 0, size, "val", seed=5)[:, 0], starts)


def test_shares_are_rounded_to_rows() -> None:
    """Largest remainders are rounded up; a share below one row is refused."""
    assert sum(block_counts([0.7, 0.2, 0.1])) == BLOCK
    assert block_counts([0.7, 0.2, 0.1]) == (2867, 819, 410)
    with pytest.raises(StrawberryError, match="data set 2 of 2 has a share of 1e-05"):
        block_counts([1, 1e-5])


def make(plugins: Plugins, data: str) -> Recipe:
    """A small recipe on bytes with this data."""
    overrides = [f"data={data}", "tokenizer=bytes", "model.vocab_size=257", "model.block_size=16",
                 "model.n_embd=16", "train.batch_size=4"]  # fmt: skip
    return strawberry.load_recipe(ROOT / "recipes/llama.yaml", overrides, plugins=plugins)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    """The built-in components."""
    return Plugins.load(disabled=["all"])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Three text files, the last of which is also validation."""
    for name, word in (("one", "red"), ("two", "blue"), ("held", "green")):
        (tmp_path / f"{name}.txt").write_text("".join(f"{word} {n}\n" for n in range(150)))
    return tmp_path


def test_ranks_and_resumed_runs_share_an_epoch(texts: Path, plugins: Plugins) -> None:
    """Two ranks have the rows of one process, and step 5 is the same without steps 0 to 4."""
    data = (f"{{use: mixture, weights: [2, 1], of: [{{use: epochs, of: {{use: text, path: "
            f"{texts}/one.txt}}}}, {{use: text, path: {texts}/two.txt}}]}}")  # fmt: skip
    recipe = make(plugins, data)
    dataset = open_dataset(recipe)
    device = strawberry.build(recipe).device
    alone = [Batches(dataset, recipe, device).train(step)[0][0] for step in range(6)]
    assert np.array_equal(Batches(open_dataset(recipe), recipe, device).train(5)[0][0], alone[5])
    halves = [Batches(dataset, recipe, device, World(n, 2)).train(5)[0][0] for n in range(2)]
    assert np.array_equal(np.sort(np.concatenate(halves), 0), np.sort(alone[5], 0))


def test_an_evaluation_tells_the_loss_of_each_source(texts: Path, plugins: Plugins) -> None:
    """It is the mean over the rows whose text is the source's, also within epochs."""
    red, blue = (f"{{use: text, path: {texts}/{name}.txt}}" for name in ("one", "two"))
    mixture = f"{{use: mixture, weights: [3, 1], names: [red, blue], of: [{red}, {blue}]}}"
    data = f"{{use: epochs, of: {mixture}}}"
    recipe = make(plugins, data)
    dataset, model = open_dataset(recipe), strawberry.build(recipe)
    machine = machine_for(recipe)
    batches = Batches(dataset, recipe, machine.device)
    metrics = validate(Engine(model), batches, machine, iters=2)

    assert dataset.tokenizer is not None
    batch = batches.val(0, 8)
    logits = model(batch.x).detach().transpose(1, 2)
    nats = functional.cross_entropy(logits, batch.y, reduction="none")
    for word in ("red", "blue"):
        mine = [word in dataset.tokenizer.decode(row) for row in batch.x.tolist()]
        assert metrics[f"val_{word}_loss"] == pytest.approx(float(nats[mine].mean()), rel=1e-5)
    for names in ("[red]", "[red, red]", "[red, 'of blue']"):
        with pytest.raises(RecipeError, match=r"data\.of\.names"):
            open_dataset(make(plugins, data.replace("[red, blue]", names)))


def test_the_tokenizer_of_a_mixture_is_trained_on_all_of_it(texts: Path, plugins: Plugins) -> None:
    """One BPE, which knows words of both texts; a source of other ids is refused."""
    sources = f"{{use: text, path: {texts}/one.txt}}, {{use: text, path: {texts}/two.txt}}"
    recipe = make(plugins, f"{{use: mixture, of: [{sources}]}}")
    recipe = strawberry.recipe.patch(recipe, ["tokenizer=bpe", "model.vocab_size=280"])
    dataset = open_dataset(recipe)
    tokenizer = dataset.tokenizer
    assert tokenizer is not None
    assert len(tokenizer.encode("red blue")) < 6
    prepare([str(texts / "two.txt")], texts / "two", tokenizer=_bytes(texts))
    other = make(
        plugins,
        f"{{use: mixture, of: [{{use: text, path: {texts}/one.txt}}, "
        f"{{use: tokens, path: {texts}/two}}]}}",
    )  # fmt: skip
    other = strawberry.recipe.patch(other, ["tokenizer=bpe", "model.vocab_size=280"])
    with pytest.raises(RecipeError, match=r"data\.of: data set 2 has another tokenizer"):
        open_dataset(other)


def _bytes(folder: Path) -> Path:
    byte_tokenizer(["<|eot|>"]).save(folder / "bytes.json")
    return folder / "bytes.json"


def test_a_file_of_one_s_own_is_held_out(texts: Path, plugins: Plugins) -> None:
    """It is all of validation, and not trained on although it is in the folder."""
    data = f"{{use: text, path: {texts}, val: {texts}/held.txt}}"
    dataset = open_dataset(make(plugins, data))
    words = {
        split: Counter("".join(dataset.texts(split) or ()).split()) for split in ("train", "val")
    }
    assert words["val"]["green"] == words["train"]["red"] == words["train"]["blue"] == 150
    assert not words["train"]["green"]
    with pytest.raises(RecipeError, match=r"data\.val: .*no such file"):
        open_dataset(make(plugins, f"{{use: text, path: {texts}, val: nowhere.txt}}"))
    with pytest.raises(RecipeError, match=r"data\.test: .*is in the val split too"):
        open_dataset(make(plugins, data.replace("}", f", test: {texts}/held.txt}}")))


def test_the_referee_finds_validation_text_of_one_source_in_another(
    texts: Path, plugins: Plugins
) -> None:
    """The overlap is measured over all sources, and a test split holds only if all have one."""
    held = f"{{use: text, path: {texts}/one.txt, val: {texts}/held.txt}}"
    data = (
        f"{{use: mixture, of: [{held}, {{use: epochs, of: {{use: text, path: {texts}/%s.txt}}}}]}}"
    )
    clean, copied = (open_dataset(make(plugins, data % name)) for name in ("two", "held"))
    found = [overlap(d.arrays("train") or (), d.arrays("val") or ()) for d in (clean, copied)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].copies < 0.1
    assert found[1].copies > 0.3
    assert clean.splits == ("train", "val")
    locked = make(plugins, f"{{use: epochs, of: {{use: text, path: {texts}/one.txt, "
                                  "test_division: 0.2}}")  # fmt: skip
    with pytest.raises(StrawberryError, match="the test split is locked"):
        open_dataset(locked).rows("test", 0, 1, block_size=16, seed=0)


def test_a_folder_of_parts_grows(texts: Path, plugins: Plugins) -> None:
    """Parts are written at the same time with one tokenizer, once each, and read by name."""
    out = texts / "grown"

    def add(name: str) -> bool:
        return prepare([str(texts / f"{name}.txt")], out, add=True, vocab_size=270).written

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(add, ["one", "two"])) == [True, True]
    assert not add("one")
    names = sorted(path.name for path in out.glob("part-*"))
    assert len(names) == 2
    data = f"{{use: tokens, path: {out}}}"
    recipe = strawberry.recipe.patch(make(plugins, data), {"model.vocab_size": 270})
    both = open_dataset(recipe)
    one = open_dataset(strawberry.recipe.patch(recipe, {"data.parts": names[:1]}))
    other = open_dataset(strawberry.recipe.patch(recipe, {"data.parts": names[1:]}))
    for split in ("train", "val"):
        joined = np.concatenate([*(one.arrays(split) or ()), *(other.arrays(split) or ())])
        assert np.array_equal(np.concatenate(both.arrays(split) or ()), joined)
    assert add("held")
    assert open_dataset(recipe).fingerprint != both.fingerprint
    pinned = strawberry.recipe.patch(recipe, {"data.parts": names})
    assert open_dataset(pinned).fingerprint == both.fingerprint
    with pytest.raises(RecipeError, match=r"data\.parts: .*no part part-no"):
        open_dataset(strawberry.recipe.patch(recipe, {"data.parts": ["part-no"]}))
    with pytest.raises(StrawberryError, match="another one, with which"):
        prepare([str(texts / "one.txt")], out, add=True, tokenizer=_bytes(texts))
