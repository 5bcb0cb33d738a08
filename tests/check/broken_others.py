"""Optimizers, schedules, data, tokenizers, tasks, trackers: each broken in one way, or sound."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from strawberry.ablate.process import TrialProcess, stop, write_request
from strawberry.contracts import (
    OptimizerSource,
    ParameterInfo,
    Schedule,
    ScheduleSite,
    Tracker,
)
from strawberry.contracts.data import (
    Corpus,
    Dataset,
    DataSource,
    Ids,
    Split,
    Task,
    Tokenizer,
    TokenizerSource,
)
from strawberry.contracts.execution import Events, Executor, FinishedJob, Job
from strawberry.errors import StrawberryError
from strawberry.plugin import hookimpl
from tests.registering import register_classes


class Steady(OptimizerSource):
    """AdamW by torch: sound."""

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        return torch.optim.AdamW([info.parameter for info in infos], lr=lr)


class Climbs(Steady):
    """Goes up."""

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD([info.parameter for info in infos], lr=lr, maximize=True)


class LeavesVectors(Steady):
    """Takes every parameter and steps matrices alone."""

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        return super().make([i for i in infos if i.parameter.ndim > 1], lr=lr, device=device)


class Clocked(torch.optim.AdamW):
    """Weighs gradients by a count that is in no state."""

    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(self.calls)
        return super().step(closure)


class Forgets(Steady):
    """Keeps what it counts outside of its state."""

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        return Clocked([info.parameter for info in infos], lr=lr)


class Looking(torch.optim.AdamW):
    """Looks at each gradient before it steps."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if float(parameter.grad.norm()) == 0.0:
                    parameter.grad.fill_(0.0)
        return super().step(closure)


class Looks(Steady):
    """The host waits for every gradient."""

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        return Looking([info.parameter for info in infos], lr=lr)


class Flat(Schedule):
    """The same rate always: sound."""

    def __init__(self, site: ScheduleSite) -> None:
        self.rate = site.learning_rate

    def __call__(self, step: int) -> float:
        return self.rate


class Beyond(Flat):
    """Rises without end."""

    def __call__(self, step: int) -> float:
        return self.rate * (1 + step)


class Numbers(Dataset):
    """Windows of random ids: sound."""

    def __init__(self, train: Ids, val: Ids) -> None:
        self.tokenizer = None
        self.vocab_size = 500
        self.fingerprint = "numbers"
        self.ids: dict[Split, Ids] = {"train": train, "val": val}

    def n_tokens(self, split: Split) -> int:
        return len(self.ids[split])

    def rows(
        self, split: Split, first: int, count: int, *, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        ids = self.ids[split]
        room = len(ids) - block_size
        numbers = np.arange(first, first + count)
        if split == "train":
            starts = [int(np.random.default_rng((seed, i)).integers(room)) for i in numbers]
        else:
            starts = (numbers * block_size % room).tolist()
        x = np.stack([ids[start : start + block_size] for start in starts])
        y = np.stack([ids[start + 1 : start + block_size + 1] for start in starts])
        return x, y


class Sound(DataSource):
    """Random ids, the last tenth for validation."""

    made = Numbers

    def open(self) -> Dataset:
        ids = np.random.default_rng(0).integers(500, size=20_000, dtype=np.int64)
        return self.made(ids[:18_000], ids[18_000:])


class Narrow(Sound):
    """Gives int32."""

    class made(Numbers):  # noqa: N801
        def rows(self, *args: Any, **sizes: Any) -> Any:
            x, y = super().rows(*args, **sizes)
            return x.astype(np.int32), y.astype(np.int32)


class Drifts(Sound):
    """Gives other training rows whenever it is asked."""

    class made(Numbers):  # noqa: N801
        asked = 0

        def rows(self, split: Split, first: int, count: int, **sizes: Any) -> Any:
            self.asked += split == "train"
            drift = 1000 * self.asked * (split == "train")
            return super().rows(split, first + drift, count, **sizes)


class Stuck(Sound):
    """Gives the first four training rows again and again."""

    class made(Numbers):  # noqa: N801
        def rows(self, split: Split, first: int, count: int, **sizes: Any) -> Any:
            return super().rows(split, first % 4 if split == "train" else first, count, **sizes)


class Reshuffles(Sound):
    """Validates on windows that depend on how many are asked for."""

    class made(Numbers):  # noqa: N801
        def rows(self, split: Split, first: int, count: int, **sizes: Any) -> Any:
            return super().rows(split, first + (split == "val") * count, count, **sizes)


class Redraws(Sound):
    """Trains on windows that depend on how many are asked for."""

    class made(Numbers):  # noqa: N801
        def rows(self, split: Split, first: int, count: int, **sizes: Any) -> Any:
            return super().rows(split, first + (split == "train") * count, count, **sizes)


class Shares(Sound):
    """Validates on what it trains on."""

    def open(self) -> Dataset:
        ids = np.random.default_rng(0).integers(500, size=20_000, dtype=np.int64)
        return Numbers(ids, ids[10_000:])


class Letters(Tokenizer):
    """UTF-8 bytes: sound."""

    vocab_size = 257
    eot = 256

    def __init__(self) -> None:
        self.special_tokens = {"<|eot|>": 256}
        self.fingerprint = "letters"

    def encode(self, text: str, special: bool = False) -> list[int]:
        if not special:
            return list(text.encode())
        parts = [list(part.encode()) for part in text.split("<|eot|>")]
        return [i for part in parts for i in [*part, 256]][:-1]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(b"<|eot|>" if i == 256 else bytes([i]) for i in ids)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.fingerprint))


class Bytewise(TokenizerSource):
    """Makes and loads `made`."""

    made = Letters

    def open(self, corpus: Corpus) -> Tokenizer:
        return self.made()

    def load(self, path: Path) -> Tokenizer:
        tokenizer = self.made()
        tokenizer.fingerprint = json.loads(path.read_text())
        return tokenizer


class Strips(Bytewise):
    """Drops blanks at both ends."""

    class made(Letters):  # noqa: N801
        def encode(self, text: str, special: bool = False) -> list[int]:
            return super().encode(text.strip(" \n"), special)


class Boasts(Bytewise):
    """Has more ids than were asked for."""

    class made(Letters):  # noqa: N801
        vocab_size = 5000


class Injectable(Bytewise):
    """Takes special tokens out of any text."""

    class made(Letters):  # noqa: N801
        def encode(self, text: str, special: bool = False) -> list[int]:
            return super().encode(text, special=True)


class LosesInBatches(Bytewise):
    """Drops the last id of each text of a batch."""

    class made(Letters):  # noqa: N801
        def encode_batch(
            self, texts: Sequence[str], special: bool = False
        ) -> list[npt.NDArray[np.uint32]]:
            return [ids[:-1] for ids in super().encode_batch(texts, special)]


class Renames(Bytewise):
    """Is another tokenizer each time it is made."""

    class made(Letters):  # noqa: N801
        def __init__(self) -> None:
            super().__init__()
            self.fingerprint = uuid.uuid4().hex


class Silent(Tracker):
    """Does nothing: sound."""


class FailsAtEvaluation(Tracker):
    """Raises in the middle of a run."""

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        raise KeyError("accuracy")


class StartsOnce(Tracker):
    """Makes a file that must not be there."""

    def model_built(self, model: Any, recipe: Any) -> None:
        self.first = True

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        if self.first:
            (run / "log.csv").open("x").close()
            self.first = False


class Draws(Tracker):
    """Takes numbers from the generator that dropout draws from."""

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        torch.rand(1)


class Parity(Task):
    """The parity of what was read: sound."""

    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        if vocab_size < 2:
            raise StrawberryError("parity needs a vocabulary of 2")
        inputs = rng.integers(2, size=length)
        return inputs, np.cumsum(inputs) % 2


class Unasked(Parity):
    """Training has nothing to answer."""

    def example(self, *args: Any, training: bool) -> tuple[Ids, Ids]:
        inputs, targets = super().example(*args, training=training)
        return inputs, np.full_like(targets, -1) if training else targets


class Counts(Parity):
    """Turns its sequences with every call."""

    calls = 0

    def example(self, *args: Any, training: bool) -> tuple[Ids, Ids]:
        Counts.calls += 1
        args[0].integers(2, size=Counts.calls)
        return super().example(*args, training=training)


class Guesses(Parity):
    """Answers what the inputs don't tell."""

    def example(self, *args: Any, training: bool) -> tuple[Ids, Ids]:
        inputs, _ = super().example(*args, training=training)
        return inputs, args[0].integers(2, size=inputs.size)


class Constant(Parity):
    """Always the same answer."""

    def example(self, *args: Any, training: bool) -> tuple[Ids, Ids]:
        inputs, targets = super().example(*args, training=training)
        return inputs, np.zeros_like(targets)


class Cramped(Parity):
    """Needs nine tokens and doesn't say so."""

    def example(self, *args: Any, training: bool) -> tuple[Ids, Ids]:
        inputs, targets = super().example(*args, training=training)
        np.broadcast_to(inputs[:9], (9,))
        return inputs, targets


class InTurn(Executor):
    """One trial after another: sound."""

    slots = 1

    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        for job in jobs:
            events.start(job)
            process = self.start(job)
            try:
                while (result := process.poll()) is None:
                    time.sleep(0.02)
            finally:
                self.stop(process)
            yield FinishedJob(job, result)

    def start(self, job: Job) -> TrialProcess:
        write_request(job.folder, {**job.request, "threads": 1})
        return TrialProcess(job.folder, {}, 600)

    def stop(self, process: TrialProcess) -> None:
        stop([process])


class Loses(InTurn):
    """Runs the last trial and forgets to tell, where all go well."""

    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        ended = list(super().run(jobs, events))
        yield from ended[:-1] if len({one.status for one in ended}) == 1 else ended


class GivesUp(InTurn):
    """Runs nothing after a trial that failed."""

    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        for one in super().run(jobs, events):
            yield one
            if one.status != "finished":
                raise RuntimeError(f"{one.job.name} failed")


class Abandons(InTurn):
    """Kills what it runs instead of asking it to stop."""

    def stop(self, process: TrialProcess) -> None:
        if process.poll() is None:
            process.kill()


@hookimpl
def strawberry_register(registry: Any) -> None:
    """Register every component of this file."""
    register_classes(registry, globals())
