"""Ten mistakes that a CPU forgives, one in each component; a local plugin.

The line that a check is to name ends in `# here`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from strawberry.contracts import FFN, Attention, Site, State, Use
from strawberry.plugin import hookimpl


class Plain(FFN):
    """Two matrices; what is wrong is between them."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.up = site.projection("up", 2 * site.n_embd, site.n_embd)
        self.down = site.projection("down", site.n_embd, 2 * site.n_embd, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        return self.down(self.between(self.up(x, use)), use)

    def between(self, h: Tensor) -> Tensor:
        return h.tanh()


class MaskOnTheCPU(Attention):
    """Plain means, with a mask that is made where nobody asked for it."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.value = site.projection("value", site.n_embd, site.n_embd)
        self.out = site.projection("out", site.n_embd, site.n_embd, output=True)
        self.width = site.n_embd

    def forward(self, x: Tensor, use: Use) -> Tensor:
        v = self.value(x, use)
        if use.state is not None:
            use.state["v"] = v = torch.cat([use.state["v"], v], 1)
        T, S = x.shape[1], v.shape[1]
        seen = self.mask(T, S, x)
        weights = seen / seen.sum(-1, keepdim=True)
        return self.out(weights @ v, use)

    def mask(self, T: int, S: int, x: Tensor) -> Tensor:
        seen = torch.ones(T, S).tril(S - T)
        return seen * x.new_ones(T, S)  # here

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        return {"v": torch.zeros(batch, 0, self.width, device=device, dtype=dtype)}


class StateOnTheCPU(MaskOnTheCPU):
    """Its state is made where nobody asked for it, and mixed with what is elsewhere."""

    def forward(self, x: Tensor, use: Use) -> Tensor:
        v = self.value(x, use)
        if use.state is not None:
            use.state["v"] = v = use.state["v"] + v  # here
        return self.out(v, use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        return {"v": torch.zeros(batch, 1, self.width, dtype=dtype)}


class BufferNotRegistered(Plain):
    """A tensor that does not move with the model."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.table = torch.linspace(0.5, 1.5, 2 * site.n_embd)

    def between(self, h: Tensor) -> Tensor:
        return h.tanh() * self.table  # here


class RangeWithoutDevice(Plain):
    """`torch.arange` where nobody asked for it."""

    def between(self, h: Tensor) -> Tensor:
        place = torch.arange(h.shape[1])[:, None]
        return h.tanh() / (1 + place)  # here


class ReadsANumber(Plain):
    """`.item()` in each pass."""

    def between(self, h: Tensor) -> Tensor:
        return h.tanh() * (1 + 0 * h.detach().mean().item())  # here


class MakesAList(Plain):
    """A list of Python made a tensor in each pass."""

    def between(self, h: Tensor) -> Tensor:
        return h.tanh() * torch.tensor([0.9, 1.1], device=h.device).repeat(h.shape[-1] // 2)  # here


class OtherGenerator(Plain):
    """Noise from a generator of the CPU."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.generator = torch.Generator().manual_seed(1)

    def __deepcopy__(self, memo: Any) -> "OtherGenerator":
        twin = OtherGenerator.__new__(OtherGenerator)
        nn.Module.__init__(twin)
        twin.up, twin.down = (nn.Module.__getattr__(self, name) for name in ("up", "down"))
        twin.generator = torch.Generator().manual_seed(1)
        return twin

    def between(self, h: Tensor) -> Tensor:
        noise = torch.empty_like(h).normal_(generator=self.generator)  # here
        return h.tanh() + 0.01 * noise


class BranchesByAValue(Plain):
    """A branch that a value decides."""

    def between(self, h: Tensor) -> Tensor:
        if h.abs().max() > 100:  # here
            return h.clamp(-1, 1)
        return h.tanh()


class AsksNumpy(Plain):
    """A step in numpy."""

    def between(self, h: Tensor) -> Tensor:
        scale = h.detach().numpy().std()  # here
        return h.tanh() * float(scale)


class HasAFloat64(Plain):
    """A constant in float64."""

    def between(self, h: Tensor) -> Tensor:
        half = torch.full((), 0.5, dtype=torch.float64, device=h.device)  # here
        return h.tanh() * half.to(h.dtype)


MISTAKES = {
    name: made
    for name, made in list(globals().items())
    if isinstance(made, type) and made.__module__ == __name__ and name != "Plain"
}


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, and the sound one, by the names of their classes."""
    for name, made in {"Plain": Plain, **MISTAKES}.items():
        registry.add("attention" if issubclass(made, Attention) else "ffn", name, made)
