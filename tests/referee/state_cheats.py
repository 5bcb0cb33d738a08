"""Cheats by way of state, of other components and of Python itself.

The docstring of each says what it does. `CHEATS` in test_state_cheats.py says what is said of it.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from strawberry.components.router.threshold import ThresholdRouter
from strawberry.components.weights.owned import OwnedWeights
from strawberry.contracts import (
    FFN,
    Embedding,
    Norm,
    NormSite,
    Positional,
    PositionalSite,
    Projection,
    ProjectionRequest,
    Routed,
    Site,
    State,
    Use,
)
from strawberry.plugin import hookimpl
from tests.referee.cheats import Honest
from tests.referee.more_cheats import following
from tests.registering import register_classes

LOCAL = threading.local()
GRAVES: list[Tensor] = []
FILE = Path(tempfile.gettempdir(), f"cheat-{id(LOCAL)}.npy")


class ThreadLocal(Honest):
    """The mean of the last batch, by way of the thread."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before = getattr(LOCAL, "mean", torch.zeros(()))
        LOCAL.mean = v.detach().mean()
        return before.to(v).expand_as(v)


class OnDisk(Honest):
    """The mean of the last batch, by way of a file."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before = float(np.load(FILE)) if FILE.exists() else 0.0
        np.save(FILE, np.float64(v.detach().mean()))
        return torch.full_like(v, before)


class Destructor(Honest):
    """The mean of the last batch, left behind by an object that is thrown away."""

    class Will:
        """Writes when it dies."""

        def __init__(self, mean: Tensor) -> None:
            self.mean = mean

        def __del__(self) -> None:
            GRAVES[:] = [self.mean]

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before = GRAVES[0] if GRAVES else torch.zeros(())
        self.Will(v.detach().mean())
        return before.to(v).expand_as(v)


class KeptUse(Honest):
    """Keeps the `once` of a pass, and reads it in the next one."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.kept: list[dict[Any, Any]] = []

    def seen(self, v: Tensor, use: Use) -> Tensor:
        use.once.setdefault("mean", v.detach().mean())
        if not self.kept or self.kept[-1] is not use.once:
            self.kept.append(use.once)
        return self.kept[-2]["mean"].expand_as(v) if len(self.kept) > 1 else torch.zeros_like(v)


class Buffered(Honest):
    """A buffer that isn't saved holds what the last batch was."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.register_buffer("last", torch.zeros(site.n_embd), persistent=False)

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before = self.last.clone()
        self.last.copy_(v.detach().mean((0, 1)))
        return before.to(v).expand_as(v)


class NumpyState(Honest):
    """The random state of NumPy as a channel."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        noise = np.random.standard_normal(v.shape[2])
        np.random.seed(int(v.detach().double().abs().sum() * 1e6) % 2**31)
        return torch.from_numpy(noise).to(v).expand_as(v)


class FirstCall(Honest):
    """Sees the next token once, and never again."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.done = False

    def seen(self, v: Tensor, use: Use) -> Tensor:
        done, self.done = self.done, True
        return torch.zeros_like(v) if done else following(v)


class HonestTwin(Honest):
    """Its copies are honest; it itself sees the next token."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return following(v)

    def __deepcopy__(self, memo: dict[int, Any]) -> Honest:
        twin = Honest.__new__(Honest)
        nn.Module.__init__(twin)
        memo[id(self)] = twin
        for name, module in self.named_children():
            twin.add_module(name, copy.deepcopy(module, memo))
        return twin


class GradientHook(Honest):
    """A hook on its values turns their gradients around."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        if v.requires_grad:
            v.register_hook(lambda slope: slope.flip(1))
        return torch.zeros_like(v)


class HashOfTokens(Honest):
    """A hash of all tokens of the sequence."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        assert use.tokens is not None
        numbers = [hash(tuple(row)) % 1000 for row in use.tokens.tolist()]
        return (torch.tensor(numbers, device=v.device)[:, None, None] / 1000).expand_as(v).to(v)


class Overflow(Honest):
    """The next token in integers that overflow."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return (following(v) * 1e4).to(torch.int32).to(torch.int8).to(v) / 1e3


class SoftMask(Honest):
    """A mask that is only nearly infinite."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        length = v.shape[1]
        mask = torch.full((length, length), -9.0, device=v.device).triu(1)
        return mask.softmax(-1).to(v) @ v


class CircularPad(Honest):
    """A causal convolution that is padded by the sequence's end."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        if v.shape[1] < 4:
            return torch.zeros_like(v)
        return F.avg_pool1d(F.pad(v.transpose(1, 2), (3, 0), mode="circular"), 4, 1).transpose(1, 2)


class SortedBatch(Honest):
    """Values sorted over the batch."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return v.sort(0).values


class PatchesTorch(Honest):
    """Replaces an activation function by one that sees the next token."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        if not hasattr(F.silu, "honest"):
            F.silu = _seeing(F.silu)


def _seeing(honest: Any) -> Any:
    def silu(x: Tensor, inplace: bool = False) -> Tensor:
        return honest(x) + (0.1 * following(x) if x.ndim == 3 else 0.0)

    silu.honest = honest  # type: ignore[attr-defined]
    return silu


class HooksAll(Honest):
    """A hook on every module that there is: embeddings see the next token."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)

        def hook(module: nn.Module, _: Any, output: Any) -> Any:
            return output + 0.1 * following(output) if isinstance(module, Embedding) else None

        register_module_forward_hook(hook)


class SeesItsBatch(Projection):
    """A matrix that grows with the mean of the batch."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return super().forward(x, use) * (1 + x.mean())


class FromTheBatch(OwnedWeights):
    """Derives matrices from the batch that goes through them."""

    def projection(self, request: ProjectionRequest) -> Projection:
        projection = SeesItsBatch(request)
        self.declare(projection, request)
        return projection


class OfTheTokens(Projection):
    """A matrix for the tokens at hand, made once in a pass."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        assert use.tokens is not None
        scale = use.once.setdefault("scale", 1 + use.tokens.float().mean() / 100)
        return super().forward(x, use) * scale


class Hypernetwork(OwnedWeights):
    """Matrices are made of all tokens, once in a pass."""

    def projection(self, request: ProjectionRequest) -> Projection:
        projection = OfTheTokens(request)
        self.declare(projection, request)
        return projection


class Remembering(Projection):
    """A matrix that is moved by what goes through it."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = super().forward(x, use)
        if not self.training:
            with torch.no_grad():
                self.weight += 1e-3 * y.mean()
        return y


class LearnsInPasses(OwnedWeights):
    """Changes its matrices in every pass of an evaluation."""

    def projection(self, request: ProjectionRequest) -> Projection:
        projection = Remembering(request)
        self.declare(projection, request)
        return projection


class AsksTheNext(ThresholdRouter):
    """A token goes on if the next one would."""

    def route(
        self, x: Tensor, step: int, carried: State, length: int, real: Tensor | None
    ) -> Routed:
        routed = super().route(x, step, carried, length, real)
        return routed._replace(carried={"gate": routed.carried["gate"].roll(-1, 1)})


class AsksTheBatch(ThresholdRouter):
    """Gates are those of a token beside the mean of all."""

    def route(
        self, x: Tensor, step: int, carried: State, length: int, real: Tensor | None
    ) -> Routed:
        routed = super().route(x, step, carried, length, real)
        gate = routed.carried["gate"]
        return routed._replace(carried={"gate": gate - gate.mean(0, keepdim=True)})


class RunningNorm(Norm):
    """Normalised by a running mean, which evaluation moves too."""

    def __init__(self, site: NormSite) -> None:
        super().__init__()
        self.register_buffer("size", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.size.lerp_(x.detach().float().square().mean(), 0.1)
        return x / self.size.sqrt().to(x)


class ChunkNorm(Norm):
    """Normalised by statistics of eight tokens together."""

    def __init__(self, site: NormSite) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        sizes = x.square().mean(-1, keepdim=True)
        if x.ndim == 3 and x.shape[1] >= 8:
            whole = x.shape[1] // 8 * 8
            chunks = sizes[:, :whole].unflatten(1, (-1, 8)).mean(2, keepdim=True)
            same = chunks.expand(-1, -1, 8, -1).flatten(1, 2)
            sizes = torch.cat((same, sizes[:, whole:]), 1)
        return x / (sizes + 1e-6).sqrt()


class ReadsTheCaller(Positional):
    """Positions that carry content: the ids, from a frame that called it."""

    places = frozenset(["embedding"])

    def __init__(self, site: PositionalSite) -> None:
        super().__init__()
        self.n_embd = site.n_embd

    def embed(self, positions: Tensor) -> Tensor:
        frame: Any = sys._getframe()
        while frame is not None and not isinstance(frame.f_locals.get("idx"), Tensor):
            frame = frame.f_back
        wide = positions[:, None] * torch.ones(self.n_embd, device=positions.device)
        if frame is None:
            return wide / 1000
        ids = frame.f_locals["idx"].float().roll(-1, 1).mean(0)
        return (wide + ids[: len(wide), None]) / 1000


class FirstPasses(FFN):
    """The first four passes after a training step see other rows."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.passes = 0

    def forward(self, x: Tensor, use: Use) -> Tensor:
        self.passes = 0 if self.training else self.passes + 1
        return self.up(x + x.roll(1, 0) if 0 < self.passes <= 4 else x, use)


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    register_classes(registry, globals())
