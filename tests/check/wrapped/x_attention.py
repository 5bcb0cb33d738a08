"""x-transformers' attention, with its gate and its cache, as a component."""

from torch import zeros
from x_transformers.x_transformers import Attention as XAttention, Intermediates

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class XTransformers(Attention):
    honours = frozenset({"bias"})

    def __init__(self, site, *, n_head: int = 4, qk_norm: bool = True, inverted: bool = False):
        super().__init__()
        self.n_head, self.width = n_head, site.n_embd // n_head
        options = {"qk_norm": qk_norm, "gate_values": True, "dropout": site.dropout}
        options |= {"causal": True, "inverted_attention": inverted}
        self.inner = XAttention(site.n_embd, self.width, heads=n_head, **options)

    def forward(self, x, use):
        end, state = use.offset + x.shape[1], use.state or {}
        past = Intermediates(cached_kv=[kept[:, :, : use.offset] for kept in state.values()])
        given = {"attn_bias": use.bias(self.n_head, end), "cache": past if state else None}
        y, made = self.inner(x, return_intermediates=True, **given)
        for kept, whole in zip(state.values(), made.cached_kv, strict=False):
            kept[:, :, use.offset : end] = whole[:, :, use.offset :]
        return y

    def new_state(self, batch, length, device, dtype):
        shape = (batch, self.n_head, length, self.width)
        return {name: zeros(shape, device=device, dtype=dtype) for name in "kv"}


@hookimpl
def strawberry_register(registry):
    registry.attention("x_transformers", XTransformers)
