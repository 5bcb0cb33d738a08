"""Gated linear attention: a state matrix for each head, decayed, written and read at each token.

Gated linear attention: Yang et al. 2023, arXiv 2312.06635, eq. 3 and section 4.4. DeltaNet: Yang
et al. 2024, arXiv 2406.06484, eq. 3 and section 3.4. Gated DeltaNet: Yang et al. 2024, arXiv
2412.06464, eq. 10. The sums are in `recurrence.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.components.attention.recurrence import recurrence
from strawberry.components.attention.softmax import head_width
from strawberry.contracts import (
    Attention,
    Component,
    Site,
    State,
    Use,
    drawn,
    wide,
    without_autocast,
)
from strawberry.errors import FieldError

Rule = Literal["gla", "delta", "gated_delta"]
Decay = Literal["channel", "head"]

DECAY: dict[Rule, Decay | None] = {"gla": "channel", "delta": None, "gated_delta": "head"}
"""The default decay of each rule."""

KEY_EPS = 1e-6
"""Added to the squared length of keys and queries, so that a zero key stays zero."""


class LinearAttention(Attention):
    """`S_t = a_t S_{t-1} + k_t^T u_t`, `o_t = q_t S_t`: linear in T, with a state of constant size.

    With `gla` u is v. With the delta rules `u_t = b_t (v_t - k_t a_t S_{t-1})`, so a value replaces
    what its key recalled, with `b = sigmoid(x W_b^T)` for each head. The result is `(norm(o) *
    silu(x W_g^T)) W_o^T`, with the recipe's norm over each head. Order comes only from the
    recurrence. Everything between the projections is in float32 at least.

    Decays start near 1. By channel they start at 0.5^(1/16) = 0.958, modified by the token. By head
    they start at exp(-A d), with A drawn from 1 to 16 and d from 0.001 to 0.1, uniform in log(d);
    the median is 0.92.

    Args:
        rule: `gla`, gated linear attention; `delta`, the delta rule, without decay; `gated_delta`,
            the delta rule with decay.
        n_head: heads H.
        n_qkv: width of the queries of all heads together, and of the keys; null takes `n_embd`. The
            papers use half of it in `gla`, three quarters in `gated_delta`.
        n_v: width of the values of all heads together; null takes `n_qkv`. The papers use twice the
            keys' width with `gla` and `gated_delta`.
        decay: `channel`, one for each channel of the keys, `sigmoid(x W_1^T W_2^T + c)^(1/root)`;
            `head`, one for each head, `exp(-A softplus(x W_a^T + c))`; null takes the rule's,
            which is `channel` for `gla` and `head` for `gated_delta`.
        decay_rank: for `channel` only: columns of W_2; null takes 16.
        decay_root: for `channel` only: the root; null takes 16. A higher root gives a longer
            memory.
        conv: width of a causal convolution over each channel of q, k and v; 0 for none; null takes
            4 with the delta rules, 0 with `gla`. SiLU follows it; the delta rules apply SiLU even
            without it.
        qk_norm: normalise queries and keys to length 1; null does so with the delta rules, which
            need it.
        gate: the output gate; null uses one except for `delta`.
        head_norm: the norm over each head's output.
        chunk: number of tokens in one product, a power of two; the result does not depend on it.
    """

    def __init__(
        self,
        site: Site,
        *,
        rule: Rule = "gla",
        n_head: Annotated[int, Ge(1)] = 4,
        n_qkv: Annotated[int, Ge(1)] | None = None,
        n_v: Annotated[int, Ge(1)] | None = None,
        decay: Decay | None = None,
        decay_rank: Annotated[int, Ge(1)] | None = None,
        decay_root: Annotated[float, Gt(0)] | None = None,
        conv: Annotated[int, Ge(0)] | None = None,
        qk_norm: bool | None = None,
        gate: bool | None = None,
        head_norm: bool = True,
        chunk: Annotated[int, Ge(1)] = 64,
    ) -> None:
        super().__init__()
        keys = n_qkv if n_qkv is not None else site.n_embd
        values = n_v if n_v is not None else keys
        decay = decay if decay is not None else DECAY[rule]
        delta = rule != "gla"
        conv = conv if conv is not None else 4 * delta
        _check(rule, decay, decay_rank, decay_root, conv, qk_norm, chunk)
        if values % n_head:
            raise FieldError("n_v", f"width {values} can't be split into {n_head} heads")
        self.n_head = n_head
        self.width = head_width(n_head, keys)
        self.v_width = values // n_head
        self.widths = [keys, keys, values]
        self.chunk = chunk
        self.unit_keys = delta if qk_norm is None else qk_norm
        self.activate = delta or conv > 0
        own = [(n_head, width // n_head) for width in self.widths]
        parts = dict(zip("qkv", own, strict=True))
        self.qkv = site.projection("qkv", sum(self.widths), site.n_embd, parts=parts)
        self.conv = ShortConv(sum(self.widths), conv) if conv else None
        self.decay: ChannelDecay | HeadDecay | None = None
        if decay == "channel":
            self.decay = ChannelDecay(site, n_head, keys, decay_rank or 16, decay_root or 16.0)
        elif decay == "head":
            self.decay = HeadDecay(site, n_head)
        self.beta = site.projection("beta", n_head, site.n_embd) if delta else None
        gated = rule != "delta" if gate is None else gate
        self.gate = None
        if gated:
            self.gate = site.projection("gate", values, site.n_embd, parts={"gate": own[2]})
        self.norm = site.norm(self.v_width) if head_norm else None
        self.out = site.projection("out", site.n_embd, values, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        qkv = self.qkv(x, use)
        if self.conv is not None:
            qkv = self.conv(qkv, use.state)
        if self.activate:
            qkv = F.silu(qkv)
        log_decay = None if self.decay is None else self.decay(x, use)
        beta = None if self.beta is None else _heads(self.beta(x, use), self.n_head).sigmoid()
        with without_autocast(x.device):
            y = self._mix(qkv, log_decay, beta, use.state)
        y = (y if self.norm is None else self.norm(y)).flatten(2).to(qkv.dtype)
        return self.out(y if self.gate is None else y * F.silu(self.gate(x, use)), use)

    def _mix(
        self, qkv: Tensor, log_decay: Tensor | None, beta: Tensor | None, state: State | None
    ) -> Tensor:
        """The recurrence for each head: (B, T, 2 D H + E H) -> (B, T, H, E)."""
        q, k, v = (_heads(part, self.n_head) for part in torch.split(qkv, self.widths, dim=-1))
        if self.unit_keys:
            q, k = _unit(q), _unit(k)
        y, last = recurrence(
            q * self.width**-0.5,
            k,
            v,
            log_decay=log_decay,
            beta=beta,
            state=None if state is None else state["memory"].to(q.dtype),
            chunk=self.chunk,
        )
        if state is not None:
            state["memory"].copy_(last)
        return y.transpose(1, 2)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """D * E float32 numbers for each head, for any length, and the last convolution inputs."""
        shape = (batch, self.n_head, self.width, self.v_width)
        sums = torch.promote_types(dtype, torch.float32)
        state = {"memory": torch.zeros(shape, device=device, dtype=sums)}
        if self.conv is not None:
            tail = (batch, self.conv.width - 1, sum(self.widths))
            state["tail"] = torch.zeros(tail, device=device, dtype=dtype)
        return state


class ShortConv(Component):
    """`y[t] = sum_{i < width} w[i] x[t - i]`, for each channel, with zeros before the sequence.

    The weights start uniform with standard deviation width^-0.5. Optimizers treat them as vectors:
    a row for each tap.
    """

    parameter_kinds = {"weight": "vector"}

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = drawn(width, channels, std=width**-0.5, uniform=True)

    def forward(self, x: Tensor, state: State | None) -> Tensor:
        """(B, T, channels) -> the same; continues from the last inputs in `state`."""
        T, past = x.shape[1], self.width - 1
        if state is None:
            x = F.pad(x, (0, 0, past, 0))
        else:
            x = torch.cat([state["tail"].to(x.dtype), x], dim=1)
            state["tail"].copy_(x[:, -past:])
        weight = self.weight.to(x.dtype)
        y = x[:, past:] * weight[0]
        for i in range(1, self.width):
            y = y + x[:, past - i : past - i + T] * weight[i]
        return y


class ChannelDecay(nn.Module):
    """`log a = logsigmoid(x W_1^T W_2^T + c) / root` for each channel of the keys, c from 0."""

    def __init__(self, site: Site, n_head: int, keys: int, rank: int, root: float) -> None:
        super().__init__()
        self.n_head = n_head
        self.root = root
        self.down = site.projection("decay_down", rank, site.n_embd)
        heads = (n_head, keys // n_head)
        self.up = site.projection("decay_up", keys, rank, parts={"decay": heads})
        self.offset = nn.Parameter(torch.zeros(keys))

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, H, T, D)."""
        logits = _heads(self.up(self.down(x, use), use), self.n_head)
        offset = wide(self.offset).view(self.n_head, 1, -1)
        return F.logsigmoid(logits + offset) / self.root


class HeadDecay(nn.Module):
    """`log a = -A softplus(x W_a^T + c)` for each head, as in Mamba-2 (arXiv 2405.21060).

    A, stored as its logarithm, starts between 1 and 16, and softplus(c) between 0.001 and 0.1.
    """

    def __init__(self, site: Site, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.step = site.projection("decay", n_head, site.n_embd)
        self.log_rate = nn.Parameter(torch.empty(n_head).uniform_(1, 16).log())
        step = torch.empty(n_head).uniform_(-3, -1).mul(2.302585092994046).exp()
        self.offset = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus's inverse

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, H, T, 1)."""
        logits = _heads(self.step(x, use), self.n_head)
        step = F.softplus(logits + wide(self.offset).view(-1, 1, 1))
        return -wide(self.log_rate).exp().view(-1, 1, 1) * step


def _heads(x: Tensor, n_head: int) -> Tensor:
    """(B, T, H * width) -> (B, H, T, width), in float32 at least."""
    return torch.unflatten(wide(x), -1, (n_head, -1)).transpose(1, 2)


def _unit(x: Tensor) -> Tensor:
    """`x / |x|` over the last dimension."""
    return x * (x.square().sum(-1, keepdim=True) + KEY_EPS).rsqrt()


def _check(
    rule: Rule,
    decay: Decay | None,
    decay_rank: int | None,
    decay_root: float | None,
    conv: int,
    qk_norm: bool | None,
    chunk: int,
) -> None:
    if rule == "delta" and decay is not None:
        raise FieldError("decay", "the delta rule has no decay; for one, write `rule: gated_delta`")
    for name, value in (("decay_rank", decay_rank), ("decay_root", decay_root)):
        if decay != "channel" and value is not None:
            raise FieldError(name, "only a decay by channel has it; write `decay: channel`")
    if conv == 1:
        raise FieldError("conv", "must be 0 or at least 2, got 1: one token mixes nothing")
    if qk_norm is False and rule != "gla":
        raise FieldError("qk_norm", "the delta rules diverge for keys longer than 1")
    if chunk & (chunk - 1):
        raise FieldError(
            "chunk", f"must be a power of two, got {chunk}; {1 << chunk.bit_length()} would be"
        )
