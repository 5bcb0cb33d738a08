"""Weights that the sequence itself changes, made causal: a fast-weight memory.

The original project derived weights from a statistic of the input over all positions and all
sequences, `OA = rms(sum_s o_s^T a_s)`, and so let the future in. Here a token sees the statistic of
earlier tokens, or of earlier chunks of tokens, of its own sequence.

B sequences, T tokens, C model width, R the memory's rank, S tokens a chunk, lambda the decay:

    o_t, a_t = rms(h_t W_o^T), rms(h_t W_a^T)

`linear` adds `gamma W OA` to W, token by token. That is the same as to add to the input h what a
linear attention recalls, so no matrix is made (`linear_memory.py`):

    h'_t = h_t + gamma sum_{s<t} lambda^{t-1-s} (q_t a_s^T R^-0.5) o_s / Z_t,     y_t = h'_t W^T

with `q_t = h_t W_c^T`, o (C), a and q (R), `Z_t = sum_{s<t} lambda^{t-1-s}`.

`chunk` makes the matrices of chunk c by a retention rule (`retention.py`), applied once to W and
the transform Psi, with a square matrix that follows from chunks before c (`chunk_memory.py`).

The memory is before one projection of a block: the first that its attention asks for with C
columns, such as QKV. All other matrices are the block's own and static.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from strawberry.components import OwnedWeights, Rule
from strawberry.contracts import Projection, ProjectionRequest, WeightSite
from strawberry.errors import FieldError
from strawberry_fast_weights.chunk_memory import ChunkProjection
from strawberry_fast_weights.linear_memory import LinearMemoryProjection, Memory


class FastWeights(OwnedWeights):
    """Static matrices of each block, and a memory of the sequence before its first projection.

    Costs of the memory: `linear` takes about C (C + 4 R) + S (R + C) multiplications a token, and
    has a state of R C + R + C numbers for each use of a block. `chunk` writes out
    (B, T / S, out, C) weights and keeps them for the backward pass, at about C^2 out / S
    multiplications a token; its state has 2 R^2 numbers, and generation makes the chunk's matrix
    anew in every call. It is meant for small matrices or large chunks.

    Args:
        form: `linear` changes weights token by token, `chunk` at the start of each chunk.
        rule: of `chunk`; null takes `oa`. With `swap` and `bilinear` the transform is
            `Psi (M + gamma OA)`; the other rules have `M + gamma OA` for M.
        rank: R; null takes an eighth of `n_embd`.
        decay: lambda; 1 for the mean over all that came before.
        chunk: S; of `linear`, the tokens whose products are taken at once, a power of two,
            which changes no result.
        gamma: what is recalled is multiplied by a learned number that starts here; from 0, the
            matrices that make o and a would have no gradient at first.
    """

    def __init__(
        self,
        site: WeightSite,
        *,
        form: Literal["linear", "chunk"] = "linear",
        rule: Rule | None = None,
        rank: Annotated[int, Ge(1)] | None = None,
        decay: Annotated[float, Gt(0), Le(1)] = 1.0,
        chunk: Annotated[int, Ge(1)] = 64,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        if form == "linear" and rule is not None:
            raise FieldError("rule", "the linear form has no chunks; write `form: chunk`")
        if form == "linear" and chunk & (chunk - 1):
            raise FieldError("chunk", f"must be a power of two, got {chunk}")
        self.n_embd = site.n_embd
        self.form = form
        rank = rank if rank is not None else max(1, site.n_embd // 8)
        self.memory = Memory(rule or "oa", rank, decay, chunk, gamma)
        self.separates = form == "linear"
        self.remembering: set[int] = set()

    def projection(self, request: ProjectionRequest) -> Projection:
        """A plain projection, or with a memory where it is the first of a block's attention."""
        first = request.name.startswith("attention.") and request.in_features == self.n_embd
        if not first or request.block in self.remembering:
            return super().projection(request)
        self.remembering.add(request.block)
        remembers = LinearMemoryProjection if self.form == "linear" else ChunkProjection
        return remembers(request, self, self.memory)
