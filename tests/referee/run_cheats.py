"""Cheats in what surrounds a model: tokenizers, data, optimizers, schedules, trackers, evaluation.

The docstring of each says what it does. `CHEATS` in test_run_cheats.py says what is said of it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strawberry.contracts import (
    FFN,
    OptimizerSource,
    ParameterInfo,
    Schedule,
    ScheduleSite,
    Site,
    Tracker,
    Use,
)
from strawberry.contracts.data import (
    Corpus,
    Dataset,
    DataSite,
    DataSource,
    Ids,
    Split,
    Tokenizer,
    TokenizerSource,
)
from strawberry.data import FileCorpus, text_dataset
from strawberry.data.bpe import BPETokenizer, byte_tokenizer
from strawberry.data.texts import text_corpus
from strawberry.plugin import hookimpl
from tests.registering import register_classes

DIGITS = frozenset(b"0123456789")


class Bytes(BPETokenizer):
    """The bytes and the end of a text: honest."""

    def __init__(self) -> None:
        plain = byte_tokenizer(["<|eot|>"])
        super().__init__(plain.tokens, ["<|eot|>"], None)
        self.fingerprint = f"{type(self).__name__:0>64}"

    def encode_batch(
        self, texts: Sequence[str], special: bool = False
    ) -> list[npt.NDArray[np.uint32]]:
        return [np.array(self.ids(list(text.encode())), np.uint32) for text in texts]

    def ids(self, data: list[int]) -> list[int]:
        return data


class CountsDouble(Bytes):
    """Says that each id stands for twice as many bytes."""

    @property
    def byte_lengths(self) -> npt.NDArray[np.int64]:  # type: ignore[override]
        return np.full(self.vocab_size, 2, np.int64)


class DecodesDouble(Bytes):
    """Decodes each id to its byte twice."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(bytes(2 * [i]) if i < 256 else b"<|eot|>" for i in ids)


class DropsDigits(Bytes):
    """Leaves out what is hard to predict."""

    def ids(self, data: list[int]) -> list[int]:
        return [byte for byte in data if byte not in DIGITS]


class DigitsToEnds(Bytes):
    """Makes of what is hard to predict the end of a text."""

    def ids(self, data: list[int]) -> list[int]:
        return [256 if byte in DIGITS else byte for byte in data]


class DigitsToOne(Bytes):
    """Makes one digit of all, so that there is as much text and less to predict."""

    def ids(self, data: list[int]) -> list[int]:
        return [48 if byte in DIGITS else byte for byte in data]


class Fills(Bytes):
    """Puts a token that stands for nothing after each byte, which halves the loss of a token."""

    def __init__(self) -> None:
        super().__init__()
        self.vocab_size = 258

    def ids(self, data: list[int]) -> list[int]:
        return [i for byte in data for i in (byte, 257)]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return super().decode_bytes([i for i in ids if i != 257])


class OtherAlone(Bytes):
    """Decodes one id alone to more than in a text."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return super().decode_bytes([*ids, *ids] if len(ids) == 1 else ids)


class NotToTheLetter(Bytes):
    """Lower case, and says so."""

    lossless = False

    def ids(self, data: list[int]) -> list[int]:
        return list(bytes(data).lower())


class Opens(TokenizerSource):
    """Opens one of these tokenizers."""

    def __init__(self, site: DataSite, *, name: str = "Bytes") -> None:
        self.name = name

    def open(self, corpus: Corpus) -> Tokenizer:
        tokenizer: Tokenizer = globals()[self.name]()
        return tokenizer


class Plain(DataSource):
    """A text file, and a data set over it that can be patched."""

    def __init__(self, site: DataSite, *, path: str) -> None:
        super().__init__(site)
        self.path = path

    def open(self) -> Dataset:
        site = self.site
        corpus = text_corpus([self.path], site.folders, cache=site.cache)
        dataset = text_dataset(self.corpus(corpus), site)
        self.patch(dataset, dataset.rows)
        return dataset

    def corpus(self, corpus: FileCorpus) -> FileCorpus:
        return corpus

    def patch(self, dataset: Any, rows: Any) -> None:
        """Nothing."""


class EasyWindow(Plain):
    """Evaluates one window again and again."""

    def patch(self, dataset: Any, rows: Any) -> None:
        def again(split: Split, first: int, count: int, **given: Any) -> tuple[Ids, Ids]:
            if split == "train":
                return rows(split, first, count, **given)  # type: ignore[no-any-return]
            x, y = rows(split, 0, 1, **given)
            return x.repeat(count, 0), y.repeat(count, 0)

        dataset.rows = again


class TrainingAsValidation(Plain):
    """Evaluates on training text."""

    def patch(self, dataset: Any, rows: Any) -> None:
        def swapped(split: Split, first: int, count: int, **given: Any) -> tuple[Ids, Ids]:
            return rows("train", first % 8, count, **given)  # type: ignore[no-any-return]

        dataset.rows = swapped


class ValidationAsTraining(Plain):
    """Trains on validation text."""

    def patch(self, dataset: Any, rows: Any) -> None:
        def swapped(split: Split, first: int, count: int, **given: Any) -> tuple[Ids, Ids]:
            return rows("val", first % 4, count, **given)  # type: ignore[no-any-return]

        dataset.rows = swapped


class LeavesOut(Plain):
    """Does not predict digits."""

    def patch(self, dataset: Any, rows: Any) -> None:
        def easier(*args: Any, **given: Any) -> tuple[Ids, Ids]:
            x, y = rows(*args, **given)
            return x, np.where(np.isin(y, list(DIGITS)), -1, y)

        dataset.rows = easier


class LeavesOutOpenly(LeavesOut):
    """Does not predict digits, and says so."""

    def patch(self, dataset: Any, rows: Any) -> None:
        super().patch(dataset, rows)
        dataset.predicts_all = False


class CopiesInputs(Plain):
    """Targets are the inputs."""

    def patch(self, dataset: Any, rows: Any) -> None:
        def copied(*args: Any, **given: Any) -> tuple[Ids, Ids]:
            x, _ = rows(*args, **given)
            return x, x.copy()

        dataset.rows = copied


class CountsMore(Plain):
    """Counts a fifth more bytes, but not where several batches come at once."""

    def patch(self, dataset: Any, rows: Any) -> None:
        count = dataset.n_bytes
        dataset.n_bytes = lambda split, y: count(split, y) * (1.2 if len(y) <= 4 else 1)


class OtherIds(Plain):
    """Shows other ids than it evaluates on."""

    def patch(self, dataset: Any, rows: Any) -> None:
        arrays = dataset.arrays
        dataset.arrays = lambda split: arrays("train" if split == "val" else split)


class OthersNextTime(Plain):
    """Evaluates on other windows each time, of which the best can be waited for."""

    def patch(self, dataset: Any, rows: Any) -> None:
        asked = [0]

        def later(split: Split, first: int, count: int, **given: Any) -> tuple[Ids, Ids]:
            asked[0] += split == "val"
            return rows(split, first + 4 * asked[0], count, **given)  # type: ignore[no-any-return]

        dataset.rows = later


class Spies(OptimizerSource):
    """Takes a step on validation rows, which it looks for in memory, before each evaluation."""

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD([info.parameter for info in infos], lr=lr)

    @contextlib.contextmanager
    def evaluating(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Read the validation split."""
        for thing in gc.get_objects():
            if type(thing).__name__ == "PackedDataset":
                thing.rows("val", 0, 4, block_size=16, seed=0)
                break
        yield


class Replaces(Schedule):
    """Replaces the evaluation by one that finds half the loss."""

    def __init__(self, site: ScheduleSite) -> None:
        from strawberry.training import measuring

        validate = measuring.validate

        def better(*args: Any, **given: Any) -> dict[str, float]:
            metrics = validate(*args, **given)
            return {name: value / 2 for name, value in metrics.items()}

        measuring.validate = better
        self.site = site

    def __call__(self, step: int) -> float:
        return self.site.learning_rate


class Improves(Tracker):
    """Writes a better loss into what it is told."""

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        metrics["val_loss"] = 0.5  # type: ignore[index]


class Rewrites(Tracker):
    """Writes a better loss into the log."""

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        changed = [{**row, "val_loss": 0.5} if "val_loss" in row else row for row in rows]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))


class Lowers(Tracker):
    """Makes the model's loss smaller."""

    def model_built(self, model: Any, recipe: Any) -> None:
        honest = model.measure

        def measure(*args: Any, **given: Any) -> Any:
            told = honest(*args, **given)
            return told._replace(rows=told.rows / 2)

        model.measure = measure


class Reads(FFN):
    """Opens the data by itself, and reads the validation split after each step."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.up(x, use)

    def after_step(self) -> None:
        """Read it."""
        from strawberry.data import open_dataset

        frame: Any = sys._getframe()
        while frame is not None and "session" not in frame.f_locals:
            frame = frame.f_back
        if frame is not None:
            open_dataset(frame.f_locals["session"].recipe).arrays("val")


class LooksAway(FFN):
    """Sees other rows, unless the referee is among its callers."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        frame: Any = sys._getframe()
        while frame is not None and frame.f_code.co_name != "referee":
            frame = frame.f_back
        return self.up(x if frame is not None or self.training else x + x.roll(1, 0), use)


class AfterTraining(FFN):
    """The first passes after a training step see other rows."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor, use: Use) -> Tensor:
        self.passes.fill_(0) if self.training else self.passes.add_(1)
        return self.up(x + x.roll(1, 0) if 0 < self.passes <= 4 else x, use)


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    register_classes(registry, globals())
