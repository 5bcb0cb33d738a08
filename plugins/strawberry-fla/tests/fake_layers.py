"""What stands in for fla's layers on a CPU: their calls, their caches, and slow loops inside."""

# ruff: noqa: D101, D102 (they are named after what they stand for)

import torch
from torch import nn
from torch.nn import functional as F


class Conv(nn.Module):
    """A causal convolution with fla's tail: the last W inputs of each channel, (B, D, W)."""

    def __init__(self, channels, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 1, width) * width**-0.5)

    def forward(self, x, tail):
        B, T, D = x.shape
        W = self.weight.shape[-1]
        if tail is not None:
            assert tail.dtype == x.dtype
        past = x.new_zeros(B, D, W) if tail is None else tail
        whole = torch.cat([past, x.mT], dim=-1)
        weight = self.weight.to(x.dtype)
        y = sum(whole[..., i + 1 : i + 1 + T] * weight[:, :, i] for i in range(W)).mT
        last = whole[..., -W:]
        if tail is not None and T == 1 and not torch.is_grad_enabled():
            last = tail.copy_(last)  # as fla's kernel for one token does
        return F.silu(y), last


class Layer(nn.Module):
    """What all of them are called with."""

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        past_key_values=None,
        use_cache=False,
        output_attentions=False,
        **kwargs,
    ):
        assert attention_mask is None
        assert use_cache == (past_key_values is not None)
        cache, last = past_key_values, None
        if cache is not None and len(cache) > self.layer_idx:
            last = cache[self.layer_idx]
        y, state, tails = self.mix(hidden_states, last)
        if cache is not None:
            cache.update(
                layer_idx=self.layer_idx,
                recurrent_state=state,
                conv_state=tails,
                offset=hidden_states.shape[1],
            )
        return y, None, cache


class Rule(Layer):
    """Gated linear attention and the delta rules, by what is asked of them."""

    values_first = True

    def __init__(
        self,
        hidden_size,
        num_heads,
        layer_idx,
        keys,
        values,
        use_short_conv,
        conv_size,
        decay=None,
        beta=False,
        gate=False,
    ):
        super().__init__()
        self.layer_idx, self.num_heads, self.decay = layer_idx, num_heads, decay
        widths = {"q": keys, "k": keys, "v": values}
        for name, width in widths.items():
            setattr(self, f"{name}_proj", nn.Linear(hidden_size, width, bias=False))
            if use_short_conv:
                setattr(self, f"{name}_conv1d", Conv(width, conv_size))
        if decay == "channel":
            self.gk_proj = nn.Sequential(nn.Linear(hidden_size, 16), nn.Linear(16, keys))
        if decay == "head":
            self.a_proj = nn.Linear(hidden_size, num_heads, bias=False)
        if beta:
            self.b_proj = nn.Linear(hidden_size, num_heads, bias=False)
        if gate:
            self.g_proj = nn.Linear(hidden_size, values, bias=False)
        self.o_proj = nn.Linear(values, hidden_size, bias=False)

    def mix(self, x, last):
        tails, streams = [], []
        for number, name in enumerate("qkv"):
            stream = getattr(self, f"{name}_proj")(x)
            if hasattr(self, "q_conv1d"):
                tail = None if last is None else last["conv_state"][number]
                stream, tail = getattr(self, f"{name}_conv1d")(stream, tail)
                tails.append(tail)
            streams.append(stream.unflatten(-1, (self.num_heads, -1)).float())
        q, k, v = streams
        a = torch.ones_like(k)
        if self.decay == "channel":
            logits = self.gk_proj(x).float().unflatten(-1, (self.num_heads, -1))
            a = torch.exp(F.logsigmoid(logits) / 16)
        if self.decay == "head":
            a = torch.sigmoid(self.a_proj(x).float())[..., None] * a
        if hasattr(self, "b_proj"):
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        S = k.new_zeros(len(x), self.num_heads, k.shape[-1], v.shape[-1])
        if last is not None:
            S = last["recurrent_state"]
            S = S.mT if self.values_first else S
        rows = []
        for t in range(x.shape[1]):
            S = S * a[:, t, :, :, None]
            u = v[:, t]
            if hasattr(self, "b_proj"):
                recalled = (k[:, t, :, :, None] * S).sum(-2)
                u = torch.sigmoid(self.b_proj(x[:, t]).float())[..., None] * (u - recalled)
            S = S + k[:, t, :, :, None] * u[:, :, None]
            rows.append((q[:, t, :, :, None] * S).sum(-2).flatten(1))
        y = torch.stack(rows, 1).to(x.dtype)
        if hasattr(self, "g_proj"):
            y = y * F.silu(self.g_proj(x))
        return self.o_proj(y), S.mT if self.values_first else S, tuple(tails) or None


class GatedLinearAttention(Rule):
    def __init__(self, *, hidden_size, expand_k, expand_v, use_output_gate, **options):
        for name in ("mode", "gate_low_rank_dim", "gate_logit_normalizer"):
            options.pop(name)
        options |= {"keys": round(hidden_size * expand_k), "values": round(hidden_size * expand_v)}
        super().__init__(hidden_size, decay="channel", gate=use_output_gate, **options)


class DeltaNet(Rule):
    values_first = False

    def __init__(self, *, hidden_size, expand_k, expand_v, use_gate, **options):
        for name in ("mode", "allow_neg_eigval"):
            options.pop(name)
        options |= {"keys": round(hidden_size * expand_k), "values": round(hidden_size * expand_v)}
        super().__init__(hidden_size, beta=True, gate=use_gate, **options)


class GatedDeltaNet(Rule):
    def __init__(self, *, hidden_size, head_dim, expand_v, use_gate, num_heads, **options):
        options.pop("allow_neg_eigval")
        keys = head_dim * num_heads
        options |= {"num_heads": num_heads, "keys": keys, "values": round(keys * expand_v)}
        super().__init__(hidden_size, decay="head", beta=True, gate=use_gate, **options)


class Mamba2(Layer):
    """One decay for each head, a shared convolution, and one token at a time once it has begun."""

    def __init__(
        self, *, head_dim, hidden_size, state_size, expand, n_groups, conv_kernel, chunk_size,
        layer_idx,
    ):  # fmt: skip
        super().__init__()
        self.layer_idx, self.width = layer_idx, round(expand * hidden_size)
        self.sizes = [self.width, n_groups * state_size, n_groups * state_size]
        self.shape = (self.width // head_dim, head_dim, n_groups, state_size)
        self.in_proj = nn.Linear(hidden_size, self.width + sum(self.sizes) + self.shape[0])
        self.conv1d = Conv(sum(self.sizes), conv_kernel)
        self.out_proj = nn.Linear(self.width, hidden_size, bias=False)

    def mix(self, x, last):
        if last is not None and x.shape[1] != 1:
            raise ValueError("Mamba2 cached decoding only supports a single new token per step.")
        H, P, G, N = self.shape
        gate, mixed, dt = self.in_proj(x).split([self.width, sum(self.sizes), H], dim=-1)
        mixed, tail = self.conv1d(mixed, None if last is None else last["conv_state"])
        v, B, C = mixed.float().split(self.sizes, dim=-1)
        v = v.unflatten(-1, (H, P))
        B, C = (part.unflatten(-1, (G, N)).repeat_interleave(H // G, 2) for part in (B, C))
        dt = F.softplus(dt.float())
        S = v.new_zeros(len(x), H, P, N) if last is None else last["recurrent_state"]
        rows = []
        for t in range(x.shape[1]):
            step = dt[:, t, :, None, None]
            S = S * torch.exp(-step) + step * v[:, t, :, :, None] * B[:, t, :, None]
            rows.append(((S * C[:, t, :, None]).sum(-1) + v[:, t]).flatten(1))
        y = torch.stack(rows, 1).to(x.dtype) * F.silu(gate)
        return self.out_proj(y), S, tail
