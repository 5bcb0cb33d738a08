"""Linear recurrences with decay and the delta rule, in chunks; used by `linear`.

For each head, with keys and queries of width D, values of width E and a state S (D, E):

    S_t = diag(a_t) S_{t-1} + k_t^T u_t,    o_t = q_t S_t,
    u_t = v_t,                                          gated linear attention
    u_t = b_t (v_t - k_t diag(a_t) S_{t-1}),            delta rule: what k_t recalls is replaced

Inside a chunk of L tokens, with state S_0 before it and decay(i, j) = a_{j+1} ... a_i:

    U = (I + N)^-1 (b V - b (K decay(., 0)) S_0),   N[i, j] = b_i k_i diag(decay(i, j)) k_j^T, j < i
    O = (Q decay(., 0)) S_0 + P U,                  P[i, j] = q_i diag(decay(i, j)) k_j^T,   j <= i
    S_L = diag(decay(L, 0)) S_0 + (K decay(L, .))^T U

(Yang et al. 2023, arXiv 2312.06635, section 4; Yang et al. 2024, arXiv 2406.06484, section 3; Yang
et al. 2024, arXiv 2412.06464, section 3.3.) All of it is matrix products over all chunks at once,
except S, which passes from chunk to chunk.

Decays are given as logarithms, at most 0. P, N and the inverse are built by halving: a block of 2m
tokens from its two halves. The decay from a token of the first half to one of the second is the
product of the rest of the first half and the beginning of the second. Every exponent is then a sum
of non-positive terms. Running sums are never subtracted, so nothing overflows, and a decay keeps
its precision next to much stronger ones.

Shapes: q and k (B, H, T, D), v (B, H, T, E); in chunks (B, H, N, L, width).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Spans: TypeAlias = list[tuple[Tensor, Tensor]]


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None,
    beta: Tensor | None,
    state: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, H, T, E) and the state (B, H, D, E) after the last token.

    Args:
        q: queries, in float32 or float64 like all others.
        k: keys; of length at most 1 with the delta rule.
        v: values.
        log_decay: log a, (B, H, T, D) or, equal for all channels, (B, H, T, 1); None for no decay.
        beta: b of the delta rule, (B, H, T, 1); None for gated linear attention.
        state: the state before the first token; None for zeros.
        chunk: L, a power of two; fewer tokens form one smaller chunk.
    """
    T, L = q.shape[2], 1
    while min(chunk, T) > L:
        L *= 2
    # Rows of zeros at the end write nothing and decay nothing.
    q, k, v = _chunks(q, L), _chunks(k, L), _chunks(v, L)
    spans = None if log_decay is None else _spans(_chunks(log_decay, L))
    pattern = _pattern(q, spans)
    scores = _scores(q, k, spans, pattern)
    arriving, leaving, kept = k, k, None
    if spans is not None:
        prefix, suffix = spans[-1]
        q, arriving, leaving = q * prefix.exp(), k * prefix.exp(), k * suffix.exp()
        kept = prefix[..., -1, :, None].exp()
    if state is None:
        state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    if beta is None:
        starts, state = _carry(leaving.mT @ v, kept, state)
    else:
        beta = _chunks(beta, L)
        solved = _inverse(beta * _scores(k, k, spans, pattern).tril(-1)) * beta.mT
        v, starts, state = _carry_delta(solved @ v, solved @ arriving, leaving, kept, state)
    return (q @ starts + scores @ v).flatten(2, 3)[:, :, :T], state


def _chunks(x: Tensor, L: int) -> Tensor:
    """(B, H, T, width) -> (B, H, N, L, width), padded with zeros."""
    return torch.unflatten(F.pad(x, (0, 0, 0, -x.shape[2] % L)), 2, (-1, L))


def _carry(written: Tensor, kept: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """The states before each chunk (B, H, N, D, E), and the last, from each chunk's writes."""
    starts = []
    for n, update in enumerate(written.unbind(2)):
        starts.append(state)
        state = (state if kept is None else state * kept[:, :, n]) + update
    return torch.stack(starts, 2), state


def _carry_delta(
    own: Tensor, recalled: Tensor, leaving: Tensor, kept: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """U of each chunk, the states before each, and the last: `U = own - recalled S`."""
    starts, written = [], []
    for n in range(own.shape[2]):
        u = own[:, :, n] - recalled[:, :, n] @ state
        starts.append(state)
        written.append(u)
        state = (state if kept is None else state * kept[:, :, n]) + leaving[:, :, n].mT @ u
    return torch.stack(written, 2), torch.stack(starts, 2), state


def _spans(log_decay: Tensor) -> Spans:
    """Sums of log decays inside blocks of 1, 2, 4 ... L tokens, each shaped as `log_decay`.

    The first of a pair sums from the block's start up to the token, the second over the tokens
    after it to the block's end.
    """
    prefix, suffix = log_decay, torch.zeros_like(log_decay)
    spans = [(prefix, suffix)]
    while (m := 2 ** (len(spans) - 1)) < log_decay.shape[-2]:
        (p1, p2), (s1, s2) = _halves(prefix, m), _halves(suffix, m)
        prefix = torch.stack([p1, p2 + p1[..., -1:, :]], -3).flatten(-4, -2)
        suffix = torch.stack([s1 + p2[..., -1:, :], s2], -3).flatten(-4, -2)
        spans.append((prefix, suffix))
    return spans


def _pattern(q: Tensor, spans: Spans | None) -> Tensor | None:
    """The decay from j to i for j <= i, else 0: (..., L, L); None if channels differ."""
    if spans is None:
        return q.new_ones(q.shape[-2], q.shape[-2]).tril()
    log_decay = spans[0][0]
    if log_decay.shape[-1] > 1:
        return None
    ones = torch.ones_like(log_decay)
    return _decayed(ones, ones, spans)


def _scores(q: Tensor, k: Tensor, spans: Spans | None, pattern: Tensor | None) -> Tensor:
    """`q_i diag(decay(i, j)) k_j^T` for j <= i, else 0: (..., L, L)."""
    if pattern is not None:
        return (q @ k.mT) * pattern
    assert spans is not None
    return _decayed(q, k, spans)


def _decayed(q: Tensor, k: Tensor, spans: Spans) -> Tensor:
    """The scores by halving: the lower left quarter of each block is late q by early k."""
    blocks = (q * k).sum(-1)[..., None, None]
    for level, (prefix, suffix) in enumerate(spans[:-1]):
        m = 2**level
        late = _halves(q, m)[1] * _halves(prefix, m)[1].exp()
        early = _halves(k, m)[0] * _halves(suffix, m)[0].exp()
        blocks = _join(blocks, late @ early.mT)
    return blocks.squeeze(-3)


def _inverse(lower: Tensor) -> Tensor:
    """`(I + lower)^-1` of strictly lower triangles (..., L, L), L a power of two.

    [[A, 0], [C, D]]^-1 = [[A^-1, 0], [-D^-1 C A^-1, D^-1]] at every size. A series of powers of
    `lower` has terms that cancel where keys repeat. The inverses of blocks are bounded: each is the
    delta rule's result for that stretch of tokens.
    """
    L = lower.shape[-1]
    blocks = lower.new_ones(*lower.shape[:-1], 1, 1)
    while (m := blocks.shape[-1]) < L:
        tiles = torch.unflatten(torch.unflatten(lower, -1, (-1, 2, m)), -4, (-1, 2, m))
        corner = tiles[..., 1, :, :, 0, :].diagonal(0, -4, -2).movedim(-1, -3)
        first, second = torch.unflatten(blocks, -3, (-1, 2)).unbind(-3)
        blocks = _join(blocks, -(second @ corner @ first))
    return blocks.squeeze(-3)


def _halves(x: Tensor, m: int) -> tuple[Tensor, ...]:
    """Both halves of every block of 2m rows: (..., L, width) -> two of (..., L / 2m, m, width)."""
    return torch.unflatten(x, -2, (-1, 2, m)).unbind(-3)


def _join(blocks: Tensor, corner: Tensor) -> Tensor:
    """Pairs of lower triangles (..., 2n, m, m), joined with the block between: (..., n, 2m, 2m)."""
    first, second = torch.unflatten(blocks, -3, (-1, 2)).unbind(-3)
    top = torch.cat([first, torch.zeros_like(first)], -1)
    return torch.cat([top, torch.cat([corner, second], -1)], -2)
