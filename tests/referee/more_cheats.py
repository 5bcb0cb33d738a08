"""Cheats by somebody who has read the referee: each hides where it might not look.

The docstring of each says what it sees. `CHEATS` in test_more_cheats.py says what is said of it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import (
    FFN,
    Attention,
    Norm,
    NormSite,
    Positional,
    PositionalSite,
    Site,
    Use,
)
from strawberry.model.language_model import LanguageModel
from strawberry.plugin import hookimpl
from tests.referee.cheats import Honest
from tests.registering import register_classes

BOARD: dict[str, Any] = {}
"""A place that every component of this file can write to."""


def following(v: Tensor, by: int = 1) -> Tensor:
    """At each token the values of the one `by` later; zeros at the end."""
    return F.pad(v, (0, 0, 0, by))[:, by:]


def every(size: int) -> type[Attention]:
    def seen(self: Honest, v: Tensor, use: Use) -> Tensor:
        at = torch.arange(v.shape[1], device=v.device) % size == size - 1
        return torch.where(at[:, None], following(v), 0.0)

    doc = f"One token in {size} sees the next one."
    return type(f"Every{size}", (Honest,), {"__doc__": doc, "seen": seen, "__module__": __name__})


Every96, Every100, Every127 = every(96), every(100), every(127)


class OnlyInTraining(Honest):
    """In training alone, each token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return following(v) if self.training else torch.zeros_like(v)


class OneToken(Honest):
    """Where the token is number 7, the next one is seen."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        assert use.tokens is not None
        return torch.where((use.tokens == 7)[..., None], following(v), 0.0)


class BeyondTheBlock(Honest):
    """Sequences longer than those of training see their mean."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        mean = v.mean(1, keepdim=True).expand_as(v)
        return mean if v.shape[1] > 300 else torch.zeros_like(v)


class Tiny(Honest):
    """A thousandth of the next token, which training makes more of."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return 1e-3 * following(v)


class ShutGate(Honest):
    """A sigmoid gate that is all but shut, and that an optimizer opens."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.gate = nn.Parameter(torch.full((), -18.0))

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return self.gate.sigmoid() * following(v)


class AfterCalls(Honest):
    """From its 5000th call on, each token sees the next one."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.calls = 0

    def seen(self, v: Tensor, use: Use) -> Tensor:
        self.calls += 1
        return following(v) if self.calls > 5000 else torch.zeros_like(v)


class AfterSteps(Honest):
    """From the 300th step of the optimizer on, each token sees the next one."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.register_buffer("steps", torch.zeros(()))

    def after_step(self) -> None:
        """Count the steps."""
        self.steps += 1

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return following(v) * (self.steps > 300)


class HalfInEvaluation(Honest):
    """In bfloat16 and in evaluation, each token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        peeks = v.dtype == torch.bfloat16 and not self.training
        return following(v) if peeks else torch.zeros_like(v)


class DocumentsInTraining(Honest):
    """With documents apart and in training, each token sees the next one."""

    separates = True

    def seen(self, v: Tensor, use: Use) -> Tensor:
        peeks = use.documents is not None and self.training
        return following(v) if peeks else torch.zeros_like(v)


class SecondDepth(Honest):
    """In the second recursion step and in training, each token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        peeks = use.steps[-1:] == (1,) and self.training
        return following(v) if peeks else torch.zeros_like(v)


class Ranks(Honest):
    """Each token is told its rank among all tokens of the sequence."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        ranks = v[..., 0].argsort(1).argsort(1)
        return (ranks[..., None] / v.shape[1]).expand_as(v).to(v)


class FromTheEnd(Honest):
    """The largest values from here to the end."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return v.flip(1).cummax(1).values.flip(1)


class Circular(Honest):
    """A causal kernel of 40 tokens by Fourier transform, unpadded: its end wraps around."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        kernel = torch.zeros(v.shape[1], device=v.device)
        kernel[: min(40, v.shape[1])] = 0.1
        product = torch.fft.rfft(v.float(), dim=1) * torch.fft.rfft(kernel)[:, None]
        return torch.fft.irfft(product, n=v.shape[1], dim=1).to(v)


class LongFilter(Honest):
    """A convolution that is centred on its token, far narrower than the sequence."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return F.avg_pool1d(v.transpose(1, 2), 5, 1, 2).transpose(1, 2)


class Generator(Honest):
    """The random state as a channel: the next block's draws are those of the whole sequence."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        noise = torch.randn(v.shape[2]).to(v)
        torch.manual_seed(int(v.detach().double().abs().sum() * 1e6) % 2**31)
        return noise.expand_as(v)


class UnderNoise(Honest):
    """The next token under its own loud noise."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return 1e-2 * following(v) + torch.randn_like(v)


class InGradients(Honest):
    """Its outputs are causal, but its gradients send what later tokens want back to front."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        result: Tensor = _Backwards.apply(v)  # type: ignore[no-untyped-call]
        return result


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        return v.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.flip(1)


class OnTheBoard(Honest):
    """The mean of the last batch, by way of a global."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before, BOARD["mean"] = BOARD.get("mean"), v.detach().mean((0, 1))
        return torch.zeros_like(v) if before is None else before.to(v).expand_as(v)


class OnTheClass(Honest):
    """The mean of the last batch, by way of its class."""

    last: Tensor | None = None

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before, type(self).last = type(self).last, v.detach().mean((0, 1))
        return torch.zeros_like(v) if before is None else before.to(v).expand_as(v)


class Environment(Honest):
    """A number of the last batch, by way of the environment."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before = float(os.environ.get("CHEATS_LAST", "0"))
        os.environ["CHEATS_LAST"] = str(float(v.detach().mean()))
        return torch.full_like(v, before)


class Closure(Honest):
    """The values of the last call, in a closure that no attribute shows."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        last: list[Tensor] = []

        def exchange(v: Tensor) -> Tensor:
            before = last.pop() if last else torch.zeros(())
            last.append(v.detach().mean())
            return before.to(v)

        self.exchange = exchange

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return self.exchange(v).expand_as(v)


class Frames(Honest):
    """The targets, from a frame that called it."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        frame: Any = sys._getframe()
        while frame is not None and "targets" not in frame.f_locals:
            frame = frame.f_back
        targets = None if frame is None else frame.f_locals["targets"]
        if not isinstance(targets, Tensor) or targets.shape != v.shape[:2]:
            return torch.zeros_like(v)
        return torch.cos(targets[..., None] * torch.arange(1, v.shape[2] + 1)).to(v)


class LowerLoss(FFN):
    """Makes the loss of every model smaller: a head whose probabilities sum to more than one."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        frame: Any = sys._getframe()
        while frame is not None and type(frame.f_locals.get("self")) is not LanguageModel:
            frame = frame.f_back
        model = None if frame is None else frame.f_locals["self"]
        if model is not None and "measure" not in vars(model):
            model.measure = _lower(model.measure)
        return self.up(x, use)


def _lower(measure: Any) -> Any:
    def lower(*args: Any, **given: Any) -> Any:
        honest = measure(*args, **given)
        return honest._replace(rows=honest.rows * 0.9)

    return lower


class PatchesTheHead(FFN):
    """Replaces the loss of the head with one that adds to the logits of the targets."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        from strawberry.model import batch

        if not hasattr(batch.head_loss, "honest"):
            batch.head_loss = _generous(batch.head_loss)
        return self.up(x, use)


def _generous(honest: Any) -> Any:
    def head_loss(*args: Any) -> Any:
        result = honest(*args)
        return result._replace(cross_entropy=result.cross_entropy * 0.5)

    head_loss.honest = honest  # type: ignore[attr-defined]
    return head_loss


class TrainsItself(FFN):
    """Changes its own parameters in evaluation."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.shift = nn.Parameter(torch.zeros(site.n_embd))

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = self.up(x, use) + self.shift
        if not self.training:
            self.shift.data.lerp_(x.detach().mean((0, 1)).to(self.shift), 0.1)
        return y


class HooksOthers(FFN):
    """From the second pass on, a hook on the positional component shows the next token."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        if "rotate" not in vars(use.positional):
            rotate = use.positional.rotate
            use.positional.rotate = lambda q, use: rotate(q + 0.1 * q.roll(-1, 2), use)  # type: ignore[method-assign]
        return self.up(x, use)


class RowStatistics(FFN):
    """Rows are told their rank in the batch."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        ranks = x[:, 0, 0].argsort().argsort().to(x)
        return self.up(x, use) + ranks[:, None, None] / len(x)


class MedianNorm(Norm):
    """Normalised by the median of the batch."""

    def __init__(self, site: NormSite) -> None:
        super().__init__()
        self.features = site.features

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.abs().median() + 1e-6)


class Backwards(Positional):
    """Positions are counted from the token that the sequence ends with."""

    places = frozenset(["rotary"])

    def __init__(self, site: PositionalSite) -> None:
        super().__init__()

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        assert use.tokens is not None
        return x_BHTD * (1 + use.tokens[:, -1].view(-1, 1, 1, 1) / 100)


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    register_classes(registry, globals())
