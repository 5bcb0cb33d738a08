"""Forbidden dependence of a language model's outputs.

A model is judged by the loss of the next token. So its output at a position may depend on the
tokens up to there, and on nothing else: no later token, no other sequence, no earlier batch.

Each of these is measured in the same way. Two batches of ids differ in what must not matter; the
outputs that must not change are compared. Both passes begin with the same random state, so dropout
and noise are no difference.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

Kind: TypeAlias = Literal["future", "batch", "history", "loss", "text", "code"]
Run: TypeAlias = Callable[[Tensor], Tensor]
"""Ids (B, T) -> outputs (B, T, ...)."""

SEED: Final = 1_000_003
NOISE: Final = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 3e-2,
    torch.float16: 1e-2,
}
"""Largest change by rounding, relative to the largest output."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A dependence that must not be.

    Attributes:
        kind: on later tokens, on other sequences of the batch, or on earlier batches; `loss` where
            the loss isn't that of the predicted distribution, `text` where tokens or bytes aren't
            those of the text, `code` where a component is in the way of what judges it.
        size: the change of the output, as a share of the largest; of the others, how much is wrong.
        detail: which token changes which output, or what else is wrong.
        place: the component in which it begins, by its path in the model; empty if not found.
    """

    kind: Kind
    size: float
    detail: str
    place: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        if self.kind not in ("future", "batch", "history"):
            return f"{where}{self.detail}"
        return f"{where}{self.detail}, by {self.size:.2g} of the largest output"


@dataclass(frozen=True, slots=True)
class Limits:
    """Two batches of ids, and the outputs that have to be the same for both.

    Attributes:
        kind: what is measured.
        first: ids (B, T).
        second: ids (B, T), changed where no output of `same` may see it.
        same: the outputs to compare, (B, T) bool.
    """

    kind: Kind
    first: Tensor
    second: Tensor
    same: Tensor

    @property
    def passes(self) -> tuple[Tensor, ...]:
        """The ids of the passes to run, of which the first and the last are compared."""
        between = (self.first,) if self.kind == "history" else ()
        return self.first, self.second, *between

    def row(self, index: int) -> Limits:
        """One of the sequences alone."""
        only = slice(index, index + 1)
        return Limits(self.kind, self.first[only], self.second[only], self.same[only])


def cuts(length: int, number: int | None = None) -> list[int]:
    """Positions from which the tokens are replaced; None takes all of them.

    The fixed ones are primes with their successors: a leak inside of chunks shows at a cut that is
    no multiple of the chunk. The others are drawn, by the same seed at every call.
    """
    if number is None or number >= length - 1:
        return list(range(1, length))
    primes = [p for p in (2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093) if p < length - 1]
    fixed = dict.fromkeys([length - 1, *(c for p in reversed(primes) for c in (p, p + 1))])
    chosen = list(fixed)[: max(1, number // 2)]
    generator = torch.Generator().manual_seed(SEED)
    drawn: list[int] = torch.randperm(length - 1, generator=generator).add(1).tolist()
    rest = [cut for cut in drawn if cut not in chosen]
    return sorted([*chosen, *rest[: number - len(chosen)]])


def pairs(
    kind: Kind, ids: Tensor, at: Sequence[int], vocab_size: int, seed: int = 0
) -> list[Limits]:
    """The inputs to compare with `ids` (B, T) for one kind; the rows share the cuts `at`."""
    if kind == "batch":
        return [others(ids, vocab_size, seed)] if len(ids) > 1 else []
    if kind == "history":
        return [again(ids, vocab_size, seed)]
    shares = (at[begin : begin + len(ids)] for begin in range(0, len(at), len(ids)))
    return [later(ids[: len(some)], some, vocab_size, seed) for some in shares]


def later(ids: Tensor, at: Sequence[int], vocab_size: int, seed: int = 0) -> Limits:
    """Row i of `ids` (B, T) with other tokens from position `at[i]` on."""
    begin = torch.tensor(at, device=ids.device)[:, None]
    after = torch.arange(ids.shape[1], device=ids.device)[None] >= begin
    return Limits("future", ids, torch.where(after, _other(ids, vocab_size, seed), ids), ~after)


def others(ids: Tensor, vocab_size: int, seed: int = 0) -> Limits:
    """The first row of `ids` (B, T) among other sequences."""
    first = torch.zeros_like(ids, dtype=torch.bool)
    first[0] = True
    return Limits("batch", ids, torch.where(first, ids, _other(ids, vocab_size, seed)), first)


def again(ids: Tensor, vocab_size: int, seed: int = 0) -> Limits:
    """`ids` (B, T) before and after another batch."""
    second = _other(ids, vocab_size, seed)
    return Limits("history", ids, second, torch.ones_like(ids, dtype=torch.bool))


def _other(ids: Tensor, vocab_size: int, seed: int) -> Tensor:
    """Other ids, each different from the one at its place."""
    generator = torch.Generator().manual_seed(SEED + seed)
    step = torch.randint(1, max(vocab_size, 2), ids.shape, generator=generator)
    return (ids + step.to(ids.device)) % vocab_size


@contextlib.contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Begin with the same random state at every call, and leave the state as it was."""
    devices = [device] if device.type not in ("cpu", "meta") else []
    python, numpy = random.getstate(), np.random.get_state()
    kind = device.type if devices else "cuda"  # torch's default, which without devices is nothing
    with torch.random.fork_rng(devices, device_type=kind):
        random.seed(SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def outputs(run: Run, ids: Tensor) -> Tensor:
    """The outputs for these ids, with the same random draws at every call."""
    with same_draws(ids.device):
        return run(ids)


def compared(run: Run, limits: Limits) -> tuple[Tensor, Tensor]:
    """The outputs of the first pass and of the last one."""
    before, *_, after = [outputs(run, ids) for ids in limits.passes]
    return before, after


def difference(
    limits: Limits, before: Tensor, after: Tensor, noise: float | None = None
) -> Breach | None:
    """The largest change of an output that must not change, if it is more than rounding."""
    noise = NOISE[before.dtype] if noise is None else noise
    scale = before.detach().abs().amax().float().clamp(min=1e-30)
    moved = (after.detach() - before.detach()).abs()[..., None].flatten(2).amax(-1).float() / scale
    moved = moved.nan_to_num(nan=torch.inf).where(limits.same, 0.0)
    size, place = (float(moved.max()), int(moved.argmax()))
    if size <= noise:
        return None
    row, token = divmod(place, moved.shape[1])
    return Breach(limits.kind, size, _detail(limits, row, token))


def gradient_breach(model: LanguageModel, limits: Limits) -> Breach | None:
    """Find an output with a gradient by the embedding of a hidden token, in training."""
    embedded: list[Tensor] = []
    hook = model.embedding.register_forward_hook(lambda _, __, output: embedded.append(output))
    with hook, torch.enable_grad():
        hidden = outputs(lambda ids: model.train().trunk(ids)[0], limits.first)
        weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(SEED)).to(hidden)
        total = (hidden * weight * limits.same[..., None]).sum()
        (slope,) = torch.autograd.grad(total, embedded[0])
    size = slope.abs().amax(-1)
    seen = size.where(~limits.same, 0.0) / size.max().clamp(min=1e-30)
    if not float(seen.max()) > NOISE[torch.float32]:
        return None
    row, token = divmod(int(seen.argmax()), seen.shape[1])
    last = int(limits.same[row].sum()) - 1
    detail = f"outputs up to token {last} have a gradient by token {token} in training"
    return Breach("future", float(seen.max()), detail)


def _detail(limits: Limits, row: int, token: int) -> str:
    if limits.kind == "batch":
        return f"other sequences of the batch change the output at token {token}"
    if limits.kind == "history":
        return f"an earlier batch changes the output at token {token}"
    begin = int((limits.first[row] != limits.second[row]).nonzero()[0])
    return f"tokens from {begin} on change the output at token {token}"
