"""The llama recipe written by hand: what a model costs that is no assembly of components.

The same matrices in the same layout, the same tables, kernels and chunked loss. `take_weights` in
peers.py gives it an assembled model's weights, and the benches show first that both then agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.components.norm.rmsnorm import rms_norm

CHUNK = 256  # tokens; 8 MiB of logits at a vocabulary of 8,192
EPS = 1e-5


class Shape(NamedTuple):
    """Sizes of a model and of its batch."""

    vocabulary: int
    length: int
    batch: int
    layers: int
    heads: int
    width: int

    @property
    def kv_heads(self) -> int:
        """Key and value heads: one for two queries."""
        return max(1, self.heads // 2)

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Hidden width of a gated network: 8/3 of the width, rounded up to a multiple of 8."""
        return -(-self.width * 8 // 24) * 8


class Layer(nn.Module):
    """Grouped-query attention and SwiGLU, each after an RMS norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, kv = shape.width, 2 * shape.kv_heads * shape.head
        self.norm1 = nn.Parameter(torch.ones(width))
        self.qkv = nn.Linear(width, width + kv, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.Parameter(torch.ones(width))
        self.up = nn.Linear(width, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: tuple[Tensor, Tensor] | None, at: int
    ) -> Tensor:
        """(B, T, C) -> (B, T, C); with a cache, after the `at` tokens that it holds."""
        B, T, C = x.shape
        heads, groups = self.shape.heads, self.shape.kv_heads
        y = self.qkv(norm(x, self.norm1)).view(B, T, -1, self.shape.head).transpose(1, 2)
        q, k, v = y.split((heads, groups, groups), dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            end = at + T
            cache[0][:, :, at:end] = k
            cache[1][:, :, at:end] = v
            k, v = cache[0][:, :, :end], cache[1][:, :, :end]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1, enable_gqa=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        value, gate = self.up(norm(x, self.norm2)).chunk(2, dim=-1)
        return x + self.down(value * F.silu(gate))


class Llama(nn.Module):
    """Token ids (B, T) to a loss, or with a cache to the next token's logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.width))
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def trunk(self, idx: Tensor, cache: list[tuple[Tensor, Tensor]] | None, at: int) -> Tensor:
        """Everything below the head."""
        positions = torch.arange(at, at + idx.shape[1], dtype=torch.float64, device=idx.device)
        half = self.shape.head // 2
        powers = torch.arange(half, dtype=torch.float64, device=idx.device) / half
        angles = positions[:, None] * 10000.0**-powers
        cos, sin = angles.cos().float(), angles.sin().float()
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        x = self.embedding(idx)
        for number, layer in enumerate(self.layers):
            x = layer(x, cos, sin, None if cache is None else cache[number], at)
        return norm(x, self.norm)

    def loss(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        h, weight = self.trunk(idx, None, 0).flatten(0, 1), self.head.weight
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else h.dtype
        loss: Tensor = HeadLoss.apply(h, weight, targets.flatten(), dtype)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def greedy(self, idx: Tensor, count: int) -> Tensor:
        """The most likely `count` tokens after `idx` (B, T), with a static cache."""
        B, T = idx.shape
        room = (B, self.shape.kv_heads, T + count, self.shape.head)
        dtype = self.head.weight.dtype
        cache = [
            (torch.zeros(room, dtype=dtype), torch.zeros(room, dtype=dtype)) for _ in self.layers
        ]
        made = torch.empty(B, count, dtype=torch.long)
        at = 0
        for number in range(count):
            h = self.trunk(idx, cache, at)[:, -1:]
            at += idx.shape[1]
            idx = self.head(h).argmax(-1)
            made[:, number] = idx[:, 0]
        return made


def norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMS norm in float32, by the kernel that we have for it."""
    return rms_norm(x.float(), gain.float(), EPS).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs i and i + D/2 of (B, H, T, D)."""
    wide = x.float()
    return torch.addcmul(wide * cos, wide.roll(x.shape[-1] // 2, dims=-1), sin).to(x.dtype)


class HeadLoss(torch.autograd.Function):
    """Cross-entropy of a linear head, a chunk of tokens at a time, gradient and all."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Mean loss of (N, C) hidden states."""
        ctx.dtypes = h.dtype, weight.dtype
        h, weight = h.to(dtype), weight.to(dtype)
        grad_h = torch.empty_like(h)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        total = torch.zeros((), device=h.device)
        room = h.new_empty(min(CHUNK, len(h)), len(weight))
        wide = room.float()
        for start in range(0, len(h), CHUNK):
            part = slice(start, start + CHUNK)
            target = targets[part, None]
            product = torch.mm(h[part], weight.mT, out=room[: len(target)])
            logits = wide[: len(target)]
            if logits.dtype != product.dtype:
                logits.copy_(product)
            top, right = logits.amax(-1, keepdim=True), logits.gather(1, target)
            grad = logits.sub_(top).exp_()
            powers = grad.sum(-1, keepdim=True)
            total += (top + powers.log() - right).sum()
            grad.scatter_add_(1, target, -powers)
            narrow = grad if grad.dtype == product.dtype else product.copy_(grad)
            scale = 1 / (len(h) * powers)
            torch.mm(narrow, weight, out=grad_h[part]).mul_(scale)
            scaled = (h[part] * scale).to(h.dtype)
            if h.dtype == torch.float32:
                grad_weight.addmm_(narrow.mT, scaled)
            else:
                grad_weight += narrow.mT @ scaled
        ctx.save_for_backward(grad_h, grad_weight)
        return total / len(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Values that the forward pass computed, scaled."""
        (grad_h, grad_weight), (h_dtype, weight_dtype) = ctx.saved_tensors, ctx.dtypes
        return grad_h.to(h_dtype) * grad, (grad_weight * grad).to(weight_dtype), None, None
