"""RWKV's channel mix: a network with a token shift, and so a state (Peng et al. 2023).

RWKV-4, arXiv 2305.13048, section 3.1, eq. 11 to 13: a gate of each channel.
"""

import torch
from torch import nn

from strawberry.contracts import FFN
from strawberry.plugin import hookimpl


class ChannelMix(FFN):
    """`sigmoid(R x^r) * V relu(K x^k)^2`, where x^r and x^k mix a token and the one before."""

    separates = False

    def __init__(self, site):
        super().__init__()
        C = self.C = site.n_embd
        self.mix = nn.Parameter(torch.linspace(0, 1, C).expand(2, C).clone())
        self.key, self.gate = site.projection("key", 4 * C, C), site.projection("gate", C, C)
        self.value = site.projection("value", C, 4 * C, output=True)

    def forward(self, x, use):
        first = torch.zeros_like(x[:, :1]) if use.state is None else use.state["last"].to(x.dtype)
        before = torch.cat([first, x[:, :-1]], 1)
        if use.state is not None:
            use.state["last"].copy_(x[:, -1:])
        of_key, of_gate = (torch.lerp(before, x, share) for share in self.mix.to(x.dtype))
        value = self.value(self.key(of_key, use).relu().square(), use)
        return self.gate(of_gate, use).sigmoid() * value

    def new_state(self, batch, length, device, dtype):
        return {"last": torch.zeros(batch, 1, self.C, device=device, dtype=dtype)}


@hookimpl
def strawberry_register(registry):
    registry.ffn("rwkv_channel_mix", ChannelMix)
