"""Mixture-of-experts attention (Csordás et al. 2023, SwitchHead, arXiv 2312.07987, section 2)."""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.components import Dispatch, ExpertRouter, extend_kv, new_kv
from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class Experts(nn.Module):
    """`sum_{e in top k} sigmoid(w_e x) W_e y`: x (N, C) and y (N, in) to (N, out)."""

    def __init__(self, site, name, out, inside, experts, active, output=False):
        super().__init__()
        gate = {"gate": "sigmoid", "normalize": False}
        self.router = ExpertRouter(site.n_embd, experts, active, **gate, name=name)
        self.bank = site.bank(name, experts, out, inside, active=active, output=output)

    def forward(self, x, y, use):
        choice = self.router(x)
        dispatch = Dispatch.of(choice)
        rows = dispatch.linear(dispatch.rows(y), self.bank.matrices(use))
        return dispatch.combine(rows, choice.gate), choice.terms


class SwitchHead(Attention):
    """Few heads, whose values and outputs are those of the experts that a token chooses."""

    honours = frozenset(["rotary"])
    waits = Dispatch.WAITS

    def __init__(self, site, *, n_head: int = 2, experts: int = 4, active: int = 2):
        super().__init__()
        C, self.H, self.D = site.n_embd, n_head, site.n_embd // n_head
        self.qk, given = site.projection("qk", 2 * C, C), (experts, active)
        every = range(n_head)
        self.values = nn.ModuleList(Experts(site, f"v{h}", self.D, C, *given) for h in every)
        self.outs = nn.ModuleList(Experts(site, f"o{h}", C, self.D, *given, True) for h in every)

    def forward(self, x, use):
        (B, T, C), flat = x.shape, x.flatten(0, 1)
        q, k = self.qk(x, use).view(B, T, 2, self.H, self.D).permute(2, 0, 3, 1, 4)
        read = [values(flat, flat, use) for values in self.values]
        v = torch.stack([one.view(B, T, self.D) for one, _ in read], 1)
        k, v = extend_kv(use.rotate(k), v, use)
        seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - T)
        y = F.scaled_dot_product_attention(use.rotate(q), k, v, attn_mask=seen).transpose(0, 1)
        written = [outs(flat, y[h].flatten(0, 1), use) for h, outs in enumerate(self.outs)]
        out = sum(one for one, _ in written).view(B, T, C)
        return (out, sum((terms for _, terms in read + written), ())) if self.training else out

    def new_state(self, batch, length, device, dtype):
        return new_kv(batch, self.H, length, self.D, device, dtype)


@hookimpl
def strawberry_register(registry):
    registry.attention("switch_head", SwitchHead)
