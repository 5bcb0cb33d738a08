"""A stack that runs on every S-th place of a shortened stream, causally (Hourglass, BLT, H-Net).

Nawrot et al. 2021, arXiv 2110.13711, section 2: mean pooling, and repetition. The mean of a group
is known at its last token; from there on its result joins the stream.
"""

import torch

from strawberry.contracts import Loop
from strawberry.plugin import hookimpl


class Shortened(Loop):
    """`x_t + f(means)_g`, where g is the last group of tokens that is complete at t.

    Args:
        stride: tokens of a group.
    """

    tokens = "renumbered"
    separates = False

    def __init__(self, site, *, stride: int = 4):
        super().__init__()
        self.S, self.C = stride, site.n_embd

    def shares(self, steps):
        return (1 / self.S,) * steps

    def forward(self, x, use, inner):
        (B, T, C), S, state = x.shape, self.S, use.state
        before = x.new_zeros(B, S - 1, C) if state is None else state["before"].to(x.dtype)
        every = torch.cat([before, x], 1)
        means = sum(every[:, k : k + T] for k in range(S)) / S  # (B, T, C), of the last S tokens
        place = torch.arange(T, device=x.device)
        go = (use.offset + place + 1) % S == 0
        result, aux = means, ()
        for step in range(inner.steps):
            size = (use.offset + T) // S - use.offset // S  # groups that end in this call
            result, more = inner.some(result, use, go.expand(B, T), step, size=size)
            aux += more
        last = torch.where(go, place + 1, 0).cummax(0).values  # 0: a group of an earlier call
        held = x.new_zeros(B, 1, C) if state is None else state["held"].to(x.dtype)
        joined = torch.cat([held, result], 1)[:, last]
        if state is not None:
            state["before"].copy_(every[:, T:])
            state["held"].copy_(joined[:, -1:])
        return x + joined, aux

    def new_state(self, batch, length, device, dtype):
        sizes = {"before": self.S - 1, "held": 1}
        shape = {name: (batch, size, self.C) for name, size in sizes.items()}
        return {n: torch.zeros(s, device=device, dtype=dtype) for n, s in shape.items()}


@hookimpl
def strawberry_register(registry):
    registry.loop("shortened", Shortened)
