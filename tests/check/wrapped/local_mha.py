"""local-attention's multi-head attention, over a window alone, as a component."""

from local_attention.transformer import LocalMHA

from strawberry.contracts import Attention
from strawberry.errors import FieldError
from strawberry.plugin import hookimpl


class Local(Attention):
    cacheable = False  # of its own it has one for single tokens alone
    routable = False  # its rotation is for tokens in a row

    def __init__(self, site, *, n_head: int = 4, window: int = 8):
        super().__init__()
        if site.n_embd % n_head:
            raise FieldError("n_head", f"{site.n_embd} can't be split into {n_head} heads")
        fields = {"heads": n_head, "dim_head": site.n_embd // n_head, "window_size": window}
        self.mha = LocalMHA(dim=site.n_embd, causal=True, dropout=site.dropout, **fields)

    def forward(self, x, use):
        return self.mha(x)


@hookimpl
def strawberry_register(registry):
    registry.attention("local_mha", Local)
