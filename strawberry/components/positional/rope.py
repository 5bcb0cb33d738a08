"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864, eq. 34), and its extensions.

Pair i of the rotated width R turns by `position * f_i`, with `f_i = base^(-2i/R)`. To reach s times
the length L that f was made for:

    linear   f_i / s                                        (Chen et al. 2023, arXiv 2306.15595)
    ntk      base becomes base * s^(R / (R - 2))            (arXiv 2309.00071, eq. 16)
    yarn     (1 - g_i) f_i / s + g_i f_i, where g_i rises from 0 to 1 as a pair turns from
             `beta_slow` to `beta_fast` times within L; queries and keys grow by 0.1 ln s + 1
             (Peng et al. 2023, arXiv 2309.00071, eq. 17-22)
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from strawberry.contracts import Positional, PositionalSite, Use, exact, wide
from strawberry.errors import FieldError

SPAN = 4096
"""With a cache, the angles of this many positions are computed once; those of later ones, each
time.
"""


class RoPE(Positional):
    """Rotates pairs of numbers of queries and keys by angles proportional to the position.

    Pair i of R rotated numbers turns by the angle `t f_i` at position t, with
    `f_i = base^(-2i/R)`.

    Angles are computed in float64 if the device supports it, so that far positions keep their
    phase. The rotation is applied in float32 and cast back. The tables are computed once in a pass,
    or once for a cache up to its length. Nothing is saved, and sequences may be longer than
    `block_size`.

    Args:
        base: the slowest rotation turns once in about `2 pi base` positions.
        sign: 1 rotates by +angle, as in the paper; -1 by -angle, as in some checkpoints. Scores are
            the same functions of distance; weights of one convention don't fit the other.
        layout: pairs of numbers: `half`, i and i + R/2, or `interleaved`, 2i and 2i + 1. Row i of a
            head's query and key matrices in `half` is row 2i in `interleaved`, row i + R/2 is row
            2i + 1.
        partial: fraction of a head's width that is rotated, rounded down to an even number R; the
            rest has no position.
        scaling: stretching of frequencies to a longer context; null for none.
        factor: the factor s by which the context grows.
        original_length: the length L of the original frequencies; null takes `block_size / factor`.
        beta_fast: for yarn, pairs that turn more often than this within L stay unchanged.
        beta_slow: for yarn, pairs that turn less often than this are fully stretched.
    """

    places = frozenset({"rotary"})

    def __init__(
        self,
        site: PositionalSite,
        *,
        base: Annotated[float, Gt(1)] = 10000.0,
        sign: Literal[1, -1] = 1,
        layout: Literal["half", "interleaved"] = "half",
        partial: Annotated[float, Gt(0), Le(1)] = 1.0,
        scaling: Literal["linear", "ntk", "yarn"] | None = None,
        factor: Annotated[float, Ge(1)] = 1.0,
        original_length: Annotated[int, Ge(1)] | None = None,
        beta_fast: Annotated[float, Gt(0)] = 32.0,
        beta_slow: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__()
        if scaling is None and factor != 1:
            raise FieldError("factor", "it needs a scaling; write `scaling: linear`, ntk or yarn")
        if beta_slow >= beta_fast:
            raise FieldError(
                "beta_slow", f"must be below beta_fast {beta_fast:g}, got {beta_slow:g}"
            )
        self.base = base
        self.sign = sign
        self.layout = layout
        self.partial = partial
        self.scaling = scaling
        self.factor = factor
        self.original_length = original_length or site.block_size / factor
        self.betas = beta_slow, beta_fast

    def check(self, n_head: int, width: int) -> None:
        """Raises ValueError if there are no pairs to rotate."""
        rotated = self.rotated(width)
        if rotated < 2 or (self.partial == 1 and width % 2):
            raise ValueError(f"rope needs an even head width, got {width}")
        if self.scaling == "ntk" and rotated < 4:
            raise ValueError("ntk scaling needs at least two rotated pairs")

    def rotated(self, width: int) -> int:
        """Number R of rotated numbers of a head."""
        return int(self.partial * width + 1e-9) // 2 * 2

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        """(R/2,) the angle of each pair for one position; created on the device, without a copy.

        In float64, or in float32 on a device without it.
        """
        base, s = self.base, self.factor
        if self.scaling == "ntk":
            base *= s ** (rotated / (rotated - 2))
        pair = torch.arange(rotated // 2, dtype=exact(device), device=device)
        plain = base ** (pair * (-2 / rotated))
        if self.scaling == "linear":
            return plain / s
        if self.scaling == "yarn":
            slow, fast = self.betas
            turns = plain * (self.original_length / (2 * math.pi))
            keep = ((turns - slow) / (fast - slow)).clamp(0.0, 1.0)
            return (1 - keep) * plain / s + keep * plain
        return plain

    def table(self, use: Use, rotated: int) -> tuple[Tensor, Tensor]:
        """Factors on a number and its partner at each of the use's positions.

        Two float32 tensors (T, R), cosine and signed sine; (B, 1, T, R) if each sequence has its
        own positions.
        """
        key = ("rope", id(self), rotated)
        if key not in use.memo:
            use.memo[key] = self._rows(use, rotated, key)
        cos, sin = use.memo[key]
        return cos, sin

    def _rows(self, use: Use, rotated: int, key: tuple[str, int, int]) -> tuple[Tensor, Tensor]:
        """The table's rows for these tokens; with a cache, from a table for many tokens."""
        end = use.offset + len(use.positions)
        if use.cache is None or use.positions.ndim > 1 or end > SPAN:
            return self._turns(use.positions, rotated)
        if key not in use.once:
            use.once[key] = self._turns(torch.arange(SPAN, device=use.positions.device), rotated)
        cos, sin = use.once[key]
        return cos[use.offset : end], sin[use.offset : end]

    def _turns(self, positions: Tensor, rotated: int) -> tuple[Tensor, Tensor]:
        """The table for positions (T,) or (B, T)."""
        frequencies = self.frequencies(rotated, positions.device)
        angles = positions.to(frequencies.dtype)[..., None] * frequencies * self.sign
        angles = angles if angles.ndim == 2 else angles[:, None]
        grow = 0.1 * math.log(self.factor) + 1 if self.scaling == "yarn" else 1.0
        cos, sin = (angles.cos() * grow).float(), (angles.sin() * grow).float()
        if self.layout == "half":
            return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        pairs = torch.stack((cos, cos), dim=-1), torch.stack((-sin, sin), dim=-1)
        return pairs[0].flatten(-2), pairs[1].flatten(-2)

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        """(B, H, T, D) -> (B, H, T, D); raises ValueError as `check` does."""
        width = x_BHTD.shape[-1]
        self.check(1, width)
        rotated = self.rotated(width)
        cos, sin = self.table(use, rotated)
        x = wide(x_BHTD)
        turned = x if rotated == width else x[..., :rotated]
        if self.layout == "half":
            partner = turned.roll(rotated // 2, dims=-1)
        else:
            partner = torch.unflatten(turned, -1, (-1, 2)).flip(-1).flatten(-2)
        y = torch.addcmul(turned * cos, partner, sin)
        y = y if rotated == width else torch.cat((y, x[..., rotated:]), dim=-1)
        return y.to(x_BHTD.dtype)
