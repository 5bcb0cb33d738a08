"""A run's own model on its own validation rows, as it is about to be judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from strawberry.model.risks import declares
from strawberry.referee.audit import DECLARED, is_its_own
from strawberry.referee.dependence import (
    NOISE,
    Breach,
    Kind,
    Limits,
    Run,
    compared,
    difference,
    outputs,
    pairs,
)
from strawberry.referee.losses import ROUNDING
from strawberry.referee.places import first_difference
from strawberry.referee.writes import left_by

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

PIECE: Final = 32
"""Tokens of a short piece of a row."""
ROUNDS: Final = 3
"""A breach has to show so often again, with other draws: rounding can move a token to another
expert once in a while."""


@torch.no_grad()
def judge(
    model: LanguageModel,
    run: Run,
    x: Tensor,
    *,
    seed: int,
    dtype: torch.dtype,
    agree: Callable[[bool], bool] = bool,
    pieces: bool = False,
) -> list[Breach]:
    """Forbidden dependence of a model's hidden states in evaluation.

    It takes five passes over these rows, three over their pieces, and a few more where something
    shows.

    Args:
        model: the model, in evaluation.
        run: ids (B, T) -> hidden states (B, T, C), compiled and cast as in the run.
        x: validation rows, (B, T).
        seed: of the positions from which tokens are replaced, and of the tokens that come there.
        dtype: that of the pass.
        agree: whether any rank says so; ranks run the same passes together. In one process, its
            own word.
        pieces: whether rows are looked at in short pieces too. Each row of a pass has one token
            from which on others come, so that a sight of the next token which is rare shows in
            many short rows sooner.
    """
    noise = ROUNDING * NOISE[dtype]
    kinds = _shown(model, run, x, seed, noise, agree, tuple(DECLARED))
    rows = dict.fromkeys(kinds, x)
    if pieces and "future" not in kinds and x.shape[1] > PIECE:
        short = x[:, : x.shape[1] // PIECE * PIECE].reshape(-1, PIECE)
        for kind in _shown(model, run, short, seed, noise, agree, ("future",)):
            rows[kind] = short
    confirmed = (
        _confirmed(model, run, ids, kind, seed, noise, agree) for kind, ids in rows.items()
    )
    return [breach for breach in confirmed if breach is not None]


def _shown(
    model: LanguageModel,
    run: Run,
    x: Tensor,
    seed: int,
    noise: float,
    agree: Callable[[bool], bool],
    kinds: Sequence[Kind],
) -> list[Kind]:
    """The kinds of dependence that show in these rows, on any rank, and are no other kind's."""
    first = outputs(run, x)
    shown: dict[Kind, None] = {}
    for limits in (limits for limits in _all_limits(model, x, seed) if limits.kind in kinds):
        last = outputs(run, limits.passes[-1])
        differs = agree(difference(limits, first, last, noise) is not None)
        if differs and agree(is_its_own(run, limits, first, noise, agree)):
            shown[limits.kind] = None
    return list(shown)


def _all_limits(model: LanguageModel, x: Tensor, seed: int) -> list[Limits]:
    """The passes to compare with the first one; `again` is last, after other rows."""
    vocab_size = model.vocab_size
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(1, x.shape[1], (2 * len(x),), generator=generator).tolist()
    every = [limits for kind in DECLARED for limits in pairs(kind, x, draws, vocab_size, seed)]
    return [limits for limits in every if declares(model, DECLARED[limits.kind])]


def _confirmed(
    model: LanguageModel,
    run: Run,
    x: Tensor,
    kind: Kind,
    seed: int,
    noise: float,
    agree: Callable[[bool], bool],
) -> Breach | None:
    """This rank's breach, if it shows again with other draws; with its place."""
    shown, own = 0, None
    for number in range(1, 8 * ROUNDS):
        for limits in _all_limits(model, x, seed + number):
            if limits.kind != kind:
                continue
            breach = difference(limits, *compared(run, limits), noise)
            own = breach or own
            shown += agree(breach is not None)
            if shown == ROUNDS:
                place = first_difference(model, run, limits)
                left = left_by(model, partial(outputs, run, limits.first), kind)
                return own and replace(own, place=place, detail=f"{own.detail}{left}")
    return None
