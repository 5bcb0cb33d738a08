"""Native sparse attention, literally (Yuan et al. 2025, arXiv 2502.11089, eq. 5 to 12)."""

import torch

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class NativeSparse(Attention):
    """Gated sum of attention to compressed blocks, to the best of these blocks, and to a window."""

    honours = frozenset(["rotary"])

    def __init__(self, site, *, n_head: int = 4, block: int = 4, selected: int = 3):
        super().__init__()
        C, self.H, self.D = site.n_embd, n_head, site.n_embd // n_head
        self.L, self.n, D = block, selected, self.D
        self.q, self.kv = site.projection("q", C, C), site.projection("kv", 6 * D, C)
        self.phi_k, self.phi_v = (site.projection(f"phi_{n}", D, block * D) for n in "kv")
        self.gate = site.projection("gate", 3 * n_head, C)
        self.out = site.projection("out", C, C, output=True)

    def forward(self, x, use):
        (B, T, C), L = x.shape, self.L
        q = use.rotate(self.q(x, use).view(B, T, self.H, self.D).transpose(1, 2))
        kv = self.kv(x, use).view(B, T, 2, 3, self.D).permute(0, 2, 3, 1, 4)  # (B, 2, 3, T, D)
        kv = torch.stack([use.rotate(kv[:, 0]), kv[:, 1]], 1)
        if use.state is not None:
            use.state["kv"][:, :, :, use.offset : use.offset + T] = kv
            kv = use.state["kv"][:, :, :, : use.offset + T]
        k, v, S = kv[:, 0], kv[:, 1], kv.shape[3]
        key, N, M = torch.arange(S, device=x.device), S // L, -(-S // L)  # whole blocks, all blocks
        at, block = key[S - T :, None], key[:M]
        k_part, v_part = (t[:, 0, : N * L].reshape(B, N, L * self.D) for t in (k, v))
        small = self.phi_k(k_part, use), self.phi_v(v_part, use)
        first, p = self.attend(q, *small, (block[:N] + 1) * L - 1 <= at)
        score = torch.nn.functional.pad(p.sum(1), (0, M - N)).masked_fill(
            (block == 0) | (block == at // L), torch.inf
        )
        best = score.masked_fill(block > at // L, -torch.inf).topk(min(self.n, M)).indices
        chosen = torch.zeros(B, T, M, dtype=torch.bool, device=x.device).scatter(2, best, True)
        chosen = chosen.repeat_interleave(L, 2)[:, None, :, :S] & (key <= at)
        second, _ = self.attend(q, k[:, 1], v[:, 1], chosen)
        third, _ = self.attend(q, k[:, 2], v[:, 2], (key <= at) & (key > at - 2 * L))
        gates = self.gate(x, use).sigmoid().view(B, T, 3, self.H, 1).transpose(1, 3)  # (B, H, 3..)
        y = torch.einsum("bhitx,bhitd->bthd", gates, torch.stack([first, second, third], 2))
        return self.out(y.reshape(B, T, C), use)

    def attend(self, q, k, v, seen):  # (B, H, T, D), (B, S, D) -> (B, H, T, D), (B, H, T, S)
        p = (q @ k[:, None].mT * self.D**-0.5).masked_fill(~seen, -1e9).softmax(-1) * seen
        return p @ v[:, None], p

    def new_state(self, batch, length, device, dtype):
        return {"kv": torch.zeros(batch, 2, 3, length, self.D, device=device, dtype=dtype)}


@hookimpl
def strawberry_register(registry):
    registry.attention("native_sparse", NativeSparse)
