"""Components that are each broken in one way, and sound ones beside them; a local plugin."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from strawberry.contracts import FFN, Attention, Join, Residual, Site, State, Stream, Use
from strawberry.plugin import hookimpl
from tests.referee.cheats import Honest
from tests.registering import register_classes


class Mean(Honest):
    """The mean of the values so far: sound."""

    cacheable = True


class LeaksInTraining(Mean):
    """In training only, every token sees the mean of the sequence."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        return 0.1 * v.mean(1, keepdim=True) if self.training else torch.zeros_like(v)


class LeaksByRounding(Attention):
    """Weights by exponentials below the maximum of all tokens: large inputs underflow."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.key = site.projection("key", site.n_embd, site.n_embd)
        self.value = site.projection("value", site.n_embd, site.n_embd)
        self.out = site.projection("out", site.n_embd, site.n_embd, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        k, v = 8 * self.key(x, use), self.value(x, use)
        if use.state is not None:
            k = torch.cat([use.state["k"], k], 1)
            v = torch.cat([use.state["v"], v], 1)
            use.state.update(k=k, v=v)
        weight = (k - k.amax(1, keepdim=True)).exp()
        y = (weight * v).cumsum(1) / (weight.cumsum(1) + 1e-30)
        return self.out(y[:, -x.shape[1] :], use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        empty = torch.zeros(batch, 0, self.key.in_features, device=device, dtype=dtype)
        return {"k": empty, "v": empty}


class Blind(Mean):
    """A token sees those before it and not itself."""

    def mean(self, total: Tensor, v: Tensor, count: Tensor) -> Tensor:
        return (total - v) / count


class ForgetsInCache(Mean):
    """Its cached form keeps half of the sum."""

    def kept(self, state: Tensor) -> Tensor:
        return state.detach() / 2

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = super().forward(x, use)
        if use.state is not None:
            use.state["sum"] = use.state["sum"].detach()
        return y


class ShutGate(Residual):
    """What a part computes joins through a gate that begins at zero: sound."""

    def join(self, site: Any) -> Join:
        return Gate()


class Gate(Join):
    """Its join."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def read(self, stream: Stream, use: Use) -> Tensor:
        return stream

    def forward(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        return stream + self.gate * y


class StopsInCache(Mean):
    """Its cached form stops part of the gradient."""

    def kept(self, state: Tensor) -> Tensor:
        return state / 2 + state.detach() / 2


class Short(Mean):
    """A token sees itself and the one before it."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        v = self.value(x, use)
        before = torch.zeros_like(v[:, :1]) if use.state is None else use.state["sum"]
        if use.state is not None:
            use.state["sum"] = v[:, -1:]
        return self.out(v + torch.cat([before, v[:, :-1]], 1), use)


class Plain(FFN):
    """Two matrices with tanh between them: sound."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", 2 * site.n_embd, site.n_embd)
        self.down = site.projection("down", site.n_embd, 2 * site.n_embd, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.down(self.up(x, use).tanh(), use)


class Flat(Plain):
    """One number a token, which broadcasting hides."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return super().forward(x, use)[..., :1] + 0.0 * self.down.weight.sum()


class Coarse(Plain):
    """Adds a large number and takes it away again."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return (super().forward(x, use) + 300) - 300


class Mixes(Plain):
    """In training, takes the mean over the batch into account."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = super().forward(x, use)
        return y + 0.3 * y.mean(0) if self.training else y


class Counts(Plain):
    """Grows with each call."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.calls = 0

    def forward(self, x: Tensor, use: Use) -> Tensor:
        self.calls += self.training
        return super().forward(x, use) * (1 + 1e-3 * self.calls)


class Rebuilds(Plain):
    """Makes a tensor of what Python holds in every pass."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        scale = torch.tensor([1.0, 0.9], device=x.device, dtype=x.dtype).repeat(x.shape[-1] // 2)
        return super().forward(x * scale, use)


class Dead(Plain):
    """Has a parameter that nothing uses."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.unused = nn.Parameter(torch.ones(3))


class Stops(Plain):
    """Its gradient lacks a part."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.down(self.up(x, use).tanh(), use) * (1 + x[..., :1].detach())


class Explodes(Plain):
    """Exponentials without a bound."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.down((0.5 * self.up(x, use)).tanh() * (0.5 * x[..., :1]).exp(), use)


class Random(Plain):
    """Starts from numbers that no seed governs."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        start = float(np.random.default_rng().random())
        self.scale = nn.Parameter(torch.full((site.n_embd,), 1 + start))

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return super().forward(x, use) * self.scale


class OffMeta(Plain):
    """Allocates a buffer wherever it is built."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.register_buffer("table", torch.zeros(4, device="cpu"))


class SavesCoarsely(Plain):
    """Rounds what it saves."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.scale = nn.Parameter(torch.ones(site.n_embd))
        self.register_state_dict_post_hook(self.round)

    @staticmethod
    def round(_: Any, state: dict[str, Tensor], prefix: str, __: Any) -> None:
        state[f"{prefix}scale"] = state[f"{prefix}scale"].bfloat16().float()

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return super().forward(x, use) * self.scale


class BreaksGraph(Plain):
    """Leaves the compiled graph."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(x, use)


class Hides(Plain):
    """Does less on the meta device than in a run."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        y = super().forward(x, use)
        return y if x.is_meta else y + 0.1 * super().forward(-x, use)


class Cubic(Plain):
    """Keeps as much as the cube of the length."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        T = x.shape[1] if x.is_meta else 1  # memory is counted on meta
        wide = x[..., :1].expand(-1, -1, T * T).tanh().mean(-1, keepdim=True)
        return super().forward(x, use) * (1 + wide)


class Slow(Plain):
    """Waits."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        if x.shape[1] == 128 and not x.is_meta:  # the length that is timed
            time.sleep(0.1)
        return super().forward(x, use)


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    register_classes(registry, globals())
