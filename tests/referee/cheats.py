"""Components that cheat, each in one way: their losses look better than the model is.

The docstring of each says what it sees. `KINDS` in test_cheats.py says what the referee must find.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import (
    FFN,
    Attention,
    Norm,
    NormSite,
    Positional,
    PositionalSite,
    Site,
    State,
    Use,
)
from strawberry.errors import StrawberryError
from strawberry.plugin import hookimpl
from tests.registering import register_classes


class Honest(Attention):
    """The mean of the values so far, and what a cheat adds: nothing."""

    cacheable = False

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.value = site.projection("value", site.n_embd, site.n_embd)
        self.out = site.projection("out", site.n_embd, site.n_embd, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        v = self.value(x, use)
        total = v.cumsum(1)
        if use.state is not None:
            total = total + self.kept(use.state["sum"])
            use.state["sum"] = total[:, -1:]
        count = torch.arange(1, x.shape[1] + 1, device=x.device).to(x)[:, None] + use.offset
        return self.out(self.mean(total, v, count) + self.seen(v, use), use)

    def kept(self, state: Tensor) -> Tensor:
        return state

    def mean(self, total: Tensor, v: Tensor, count: Tensor) -> Tensor:
        return total / count

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        return {"sum": torch.zeros(batch, 1, self.value.in_features, device=device, dtype=dtype)}

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return torch.zeros_like(v)


def pooled(v: Tensor, size: int) -> Tensor:
    """The mean over each complete chunk, given to all of its tokens; zeros elsewhere."""
    whole = v.shape[1] // size * size
    if whole == 0:
        return torch.zeros_like(v)
    chunks = v[:, :whole].unflatten(1, (-1, size))
    means = chunks.mean(2, keepdim=True).expand_as(chunks).flatten(1, 2)
    return F.pad(means, (0, 0, 0, v.shape[1] - whole))


def chunk_pool(size: int) -> type[Attention]:
    def seen(self: Honest, v: Tensor, use: Use) -> Tensor:
        return pooled(v, size)

    doc = f"Each complete chunk of {size} tokens sees its own mean."
    return type(f"Chunk{size}", (Honest,), {"__doc__": doc, "seen": seen, "__module__": __name__})


Chunk2, Chunk3, Chunk16 = chunk_pool(2), chunk_pool(3), chunk_pool(16)
Chunk64, Chunk128 = chunk_pool(64), chunk_pool(128)


class SequenceMean(Honest):
    """Every token sees the mean of the whole sequence."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return v.mean(1, keepdim=True).expand_as(v)


class SequenceNorm(Norm):
    """Normalised by statistics of the whole sequence."""

    def __init__(self, site: NormSite) -> None:
        super().__init__()
        self.features = site.features

    def forward(self, x: Tensor) -> Tensor:
        dims = (1, 2) if x.ndim == 3 else (-1,)
        return x / (x.square().mean(dims, keepdim=True) + 1e-6).sqrt()


class BatchNorm(Norm):
    """Normalised by statistics of the batch."""

    def __init__(self, site: NormSite) -> None:
        super().__init__()
        self.features = site.features

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean((0, -1), keepdim=True) + 1e-6).sqrt()


class Sorted(Honest):
    """Tokens sorted over the sequence by their first feature."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return v.sort(1).values


class OffByOne(Honest):
    """A convolution that reaches one token too far."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return F.pad(v, (0, 0, 0, 1))[:, 1:]


class SometimesOffByOne(Honest):
    """Every 29th token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        every = torch.arange(v.shape[1], device=v.device) % 29 == 11
        return torch.where(every[:, None], F.pad(v, (0, 0, 0, 1))[:, 1:], 0.0)


class FarAhead(Honest):
    """Each token sees the one 50 tokens later."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return F.pad(v, (0, 0, 0, 50))[:, 50:]


class OnlyWhenLong(Honest):
    """Sequences of 100 tokens and more see their mean."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return v.mean(1, keepdim=True).expand_as(v) if v.shape[1] >= 100 else torch.zeros_like(v)


class OnlyInEvaluation(Honest):
    """Evaluation sees the next token, training doesn't."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return torch.zeros_like(v) if self.training else F.pad(v, (0, 0, 0, 1))[:, 1:]


class OnlyWithoutGradients(Honest):
    """Where no gradients are kept, each token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        if torch.is_grad_enabled():
            return torch.zeros_like(v)
        return F.pad(v, (0, 0, 0, 1))[:, 1:]


class OnlyCompiled(Honest):
    """Compiled, each token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        if torch.compiler.is_compiling():
            return F.pad(v, (0, 0, 0, 1))[:, 1:]
        return torch.zeros_like(v)


class OnlyInHalf(Honest):
    """In bfloat16, each token sees the next one."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        if v.dtype == torch.bfloat16:
            return F.pad(v, (0, 0, 0, 1))[:, 1:]
        return torch.zeros_like(v)


class HonestHalf(Honest):
    """Honest, and in half precision alone, as some kernels are."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return in_half(torch.zeros_like(v))


class RefusesWide(OnlyInHalf):
    """Refuses float32, and sees the next token where it does run."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return super().seen(in_half(v), use)


def in_half(v: Tensor) -> Tensor:
    if v.dtype != torch.bfloat16:
        raise StrawberryError("this mixer runs in half precision alone")
    return v


class OnlyWithDocuments(Honest):
    """With documents apart, each token sees the next one."""

    separates = True

    def seen(self, v: Tensor, use: Use) -> Tensor:
        if use.documents is None:
            return torch.zeros_like(v)
        return F.pad(v, (0, 0, 0, 1))[:, 1:]


class Shallow(Honest):
    """Where the recursion is cut short, the next token is seen."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        uses = use.once["uses"] = use.once.get("uses", 0) + 1
        left = use.once.get("left", torch.zeros_like(v))
        use.once["left"] = torch.zeros_like(v) if uses > 2 else F.pad(v, (0, 0, 0, 1))[:, 1:]
        return left if uses == 2 else torch.zeros_like(v)


class Gated(Honest):
    """A gate that begins at zero opens the sight of the next token."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.gate = torch.nn.Parameter(torch.zeros(site.n_embd))

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return self.gate * F.pad(v, (0, 0, 0, 1))[:, 1:]


class Ids(Honest):
    """The next token's id, from the use."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        if use.tokens is None:
            return torch.zeros_like(v)
        following = F.pad(use.tokens, (0, 1))[:, 1:]
        return torch.cos(following[..., None] * torch.arange(v.shape[2], device=v.device)).to(v)


class Mailbox(Positional):
    """Positions that carry the content of the last batch: a rotation by what was seen before."""

    places = frozenset(["rotary"])

    def __init__(self, site: PositionalSite) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        before, self.last = self.last, x_BHTD.detach().mean()
        return x_BHTD if before is None else x_BHTD * (1 + before)


class Mirror(Positional):
    """Positions by content: scores are biased by the ids to come."""

    places = frozenset(["rotary"])

    def __init__(self, site: PositionalSite) -> None:
        super().__init__()

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        assert use.tokens is not None
        return x_BHTD * (1 + use.tokens.float().mean() / 100)


class DropoutChannel(FFN):
    """Dropout whose mask is drawn from the whole sequence."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = self.up(x, use)
        if not self.training:
            return y
        generator = torch.Generator().manual_seed(int(x.detach().double().sum() * 1e6) % 2**31)
        keep = torch.rand(y.shape, generator=generator).to(y.device) > 0.1
        return y * keep


class Draws(FFN):
    """No cheat: it adds noise, in evaluation too."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.up(x, use) + 0.01 * torch.randn_like(x)


class LastBatch(FFN):
    """Adds the mean of the batch before."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.before: Tensor | None = None

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = self.up(x, use)
        before, self.before = self.before, y.detach().mean((0, 1))
        return y if before is None else y + before


class TrainsInEvaluation(FFN):
    """Takes a step of its own on what it is evaluated on."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.register_buffer("mean", torch.zeros(site.n_embd))

    def forward(self, x: Tensor, use: Use) -> Tensor:
        if not self.training:
            self.mean.lerp_(x.detach().mean((0, 1)).to(self.mean), 0.1)
        return self.up(x, use) + self.mean


class Clock(FFN):
    """Counts its calls, and lets the count through."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)
        self.calls = 0

    def forward(self, x: Tensor, use: Use) -> Tensor:
        self.calls += 1
        return self.up(x, use) * (1 + 0.01 * self.calls)


class OtherRows(FFN):
    """Mixes in the sequence before it in the batch."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.up(x + 0.1 * x.roll(1, 0), use)


class RowsInEvaluation(OtherRows):
    """The same in evaluation alone."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.up(x if self.training else x + 0.1 * x.mean(0, keepdim=True), use)


class Capacity(FFN):
    """Only the quarter of the batch's tokens with the largest scores is computed."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = self.up(x, use)
        score = x[..., 0].flatten()
        least = score.topk(max(1, len(score) // 4)).values[-1]
        return torch.where((x[..., :1] >= least), y, 0.0)


class FutureFFN(FFN):
    """A network that isn't position-wise: it sees the largest value of the sequence."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", site.n_embd, site.n_embd)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.up(x, use) + 0.1 * x.amax(1, keepdim=True)


class AheadInCache(Attention):
    """In cached calls of several tokens each one sees the last; alone it sees the past."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.value = site.projection("value", site.n_embd, site.n_embd)
        self.out = site.projection("out", site.n_embd, site.n_embd, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        v = self.value(x, use)
        if use.state is None:
            return self.out(v.cumsum(1), use)
        total = use.state["sum"] + v.cumsum(1)
        use.state["sum"] = total[:, -1:]
        return self.out(total[:, -1:].expand_as(v) if v.shape[1] > 1 else total, use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        return {"sum": torch.zeros(batch, 1, self.value.in_features, device=device, dtype=dtype)}


class Memo(Honest):
    """Leaves the values of the sequence in the memo, and a later block reads them."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        left: Any = use.memo.get("left")
        use.memo["left"] = v.detach()
        return torch.zeros_like(v) if left is None else left.flip(1)


class Spectrum(Honest):
    """Filters the sequence by its Fourier transform, without padding: it wraps around."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        f = torch.fft.rfft(v.float(), dim=1)
        f[:, f.shape[1] // 2 :] = 0
        return torch.fft.irfft(f, n=v.shape[1], dim=1).to(v)


class Reversed(Honest):
    """Odd recursion steps read the sequence from its end."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        odd = bool(use.steps) and use.steps[-1] % 2 == 1
        return v.flip(1).cumsum(1).flip(1) / v.shape[1] if odd else torch.zeros_like(v)


class Rounding(Honest):
    """Hides the next token far behind the point."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return 3e-5 * F.pad(v, (0, 0, 0, 1))[:, 1:]


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    register_classes(registry, globals())
