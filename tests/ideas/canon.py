"""Canon layers A to D: short causal convolutions (Allen-Zhu 2025, SSRN 5240330, section 4)."""

import torch

from strawberry.contracts import Block, Projection
from strawberry.plugin import hookimpl

K = 4  # tokens of `x + conv(x)`; a state has K - 1 of them


def convolved(x, weight, state, name):  # (B, T, F) -> (B, T, F)
    before = x.new_zeros(len(x), K - 1, x.shape[-1]) if state is None else state[name].to(x.dtype)
    every = torch.cat([before, x], 1)
    if state is not None:
        state[name].copy_(every[:, 1 - K :])
    return x + sum(weight[k].to(x.dtype) * every[:, k : k + x.shape[1]] for k in range(K))


class Convolved(Projection):
    def __init__(self, of):
        super().__init__(of)
        self.of, self.weight = of, torch.nn.Parameter(torch.zeros(K, of.out_features))

    def forward(self, x, use):
        return convolved(self.of(x, use), self.weight, use.state, f"{self.name}.canon")

    def matrix(self, use):
        return self.of.matrix(use)

    def new_state(self, batch, length, device, dtype):
        zeros = torch.zeros(batch, K - 1, self.out_features, device=device, dtype=dtype)
        return {f"{self.name}.canon": zeros}


class Canon(Block):
    """The usual block with canon layers A and C before its parts, B and D within; 0 at first."""

    def __init__(self, site):
        super().__init__()
        self.separates, self.C, first = False, site.n_embd, {"qkv", "kv", "up"}
        within = site.wrapped(lambda name, of: Convolved(of) if name in first else of)
        self.parts = [within.part(name) for name in site.parts]
        self.weights = torch.nn.ParameterDict({p.name: torch.zeros(K, self.C) for p in self.parts})

    def forward(self, stream, use):
        aux = ()
        for part in self.parts:
            x = convolved(part.read(stream, use), self.weights[part.name], use.state, part.name)
            y, more = part.compute(x, use)
            stream, aux = part.join(stream, y, use), aux + more
        return stream, aux

    def new_state(self, batch, length, device, dtype):
        shape = (batch, K - 1, self.C)
        return {p.name: torch.zeros(shape, device=device, dtype=dtype) for p in self.parts}


@hookimpl
def strawberry_register(registry):
    registry.block("canon", Canon)
