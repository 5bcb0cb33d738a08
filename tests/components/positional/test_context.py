"""Positions that depend on the text, against literal loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import strawberry
from strawberry.contracts import Use
from strawberry.plugin import Plugins
from tests.support import TINY, recipe_of

IDEAS = Path(__file__).parents[2] / "ideas"
T, H, G = 9, 4, 2


def built(name: str, file: str, **attention: Any) -> Any:
    """A model of one block in float64, whose positional component has random parameters."""
    plugins = Plugins.load(files=[IDEAS / f"{file}.py"], disabled=["all"])
    mixer = {"use": "mha", "n_head": H, "n_kv_head": G, **attention}
    model = {**TINY, "positional": name, "stack": [{"attention": mixer}]}
    model = strawberry.build(recipe_of(model, plugins=plugins)).double().eval()
    torch.manual_seed(1)
    for parameter in model.positional.parameters():
        torch.nn.init.normal_(parameter)
    return model


def attended(model: Any, x: Tensor, score: Any, window: int) -> Tensor:
    """Softmax attention of one sequence (T, C) by loops; `score(h, q, keys, i, j)` of a pair."""
    mixer, D = model.stack.nodes[0].attention, model.n_embd // H
    rows = x @ mixer.qkv.weight.T
    q, k, v = (r.view(len(x), -1, D) for r in rows.split([H * D, G * D, G * D], -1))
    y = torch.zeros_like(q)
    for h in range(H):
        g = h // (H // G)
        for i in range(len(x)):
            seen = range(max(0, i - window + 1), i + 1)
            scores = torch.stack([score(h, q[:, h], k[:, g], i, j) for j in seen])
            y[i, h] = scores.softmax(0) @ v[seen.start : i + 1, g]
    return y.flatten(1) @ mixer.out.weight.T


def contextual(model: Any) -> Any:
    """Equations of CoPE: gates of the keys in between, their sum, an interpolated vector."""
    part, D = model.positional, model.n_embd // H
    vectors = part.vectors.view(-1, H, D)

    def score(h: int, q: Tensor, k: Tensor, i: int, j: int) -> Tensor:
        root = math.sqrt(D)
        place = sum(torch.sigmoid(q[i] @ k[r] / root) for r in range(j, i + 1))
        place = min(float(place), float(part.most))
        low, high = vectors[math.floor(place), h], vectors[math.ceil(place), h]
        share = place - math.floor(place)
        return q[i] @ (k[j] + (1 - share) * low + share * high) / root

    return score


def selective(model: Any) -> Any:
    """A rotation of query and key by the angles of the keys in between."""
    rates, D = model.positional.rates, model.n_embd // H

    def score(h: int, q: Tensor, k: Tensor, i: int, j: int) -> Tensor:
        g = h // (H // G)
        total = torch.zeros((), dtype=q.dtype)
        for pair in range(D // 2):
            weights = rates[g * D : (g + 1) * D] * rates[pair]
            angle = sum((k[r] @ weights for r in range(j + 1, i + 1)), torch.zeros(()).double())
            a, b, c, d = q[i, pair], q[i, pair + D // 2], k[j, pair], k[j, pair + D // 2]
            total = total + angle.cos() * (a * c + b * d) + angle.sin() * (a * d - b * c)
        return total / math.sqrt(D)

    return score


@pytest.mark.parametrize("window", [T, 4])
@pytest.mark.parametrize(
    ("name", "file", "oracle"),
    [("contextual", "contextual_position", contextual),
     ("selective", "selective_rotation", selective)],
)  # fmt: skip
@torch.no_grad()
def test_positions_of_the_text_are_what_loops_say(
    name: str, file: str, oracle: Any, window: int
) -> None:
    """Queries that share keys, a window, and cached calls agree with the equations."""
    model = built(name, file, **({} if window == T else {"window": window}))
    x = torch.randn(1, T, model.n_embd, dtype=torch.float64)
    mixer = model.stack.nodes[0].attention
    expected = attended(model, x[0], oracle(model), window)
    torch.testing.assert_close(mixer(x, model.use(torch.zeros(1, T, dtype=int)))[0], expected)
    state = mixer.new_state(1, T, x.device, x.dtype)
    parts = []
    for first, last in ((0, 3), (3, 4), (4, T)):
        use = Use(torch.arange(first, last), first, model.positional, model.weights, state=state)
        parts.append(mixer(x[:, first:last], use)[0])
    torch.testing.assert_close(torch.cat(parts), expected)


@torch.no_grad()
def test_tokens_that_are_left_out_do_not_count() -> None:
    """In a routed recursion, with keys of its first step too, cached calls agree."""
    plugins = Plugins.load(files=[IDEAS / "contextual_position.py"], disabled=["all"])
    block = {"attention": {"use": "mha", "n_head": H}, "ffn": "swiglu"}
    recur = {"recur": 3, "stack": [block], "router": "token_choice"}
    ids = torch.randint(50, (3, T), generator=torch.Generator().manual_seed(0))
    for keys in ("own", "first"):
        stack = [block, {**recur, "keys": keys}]
        tree = {**TINY, "positional": "contextual", "stack": stack}
        model = strawberry.build(recipe_of(tree, plugins=plugins)).double().eval()
        torch.nn.init.normal_(model.positional.vectors)
        cache = model.new_cache(3, T)
        parts = [model(piece, cache) for piece in ids.split([4, 1, T - 5], 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids))
