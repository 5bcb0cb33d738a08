"""Packed weights: equal or close logits and texts, whoever wrote the module that multiplies."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import strawberry
from strawberry.errors import StrawberryError
from strawberry.generation import Sampling, sample_ids
from strawberry.generation.packing import (
    FEW_ROWS,
    BFloat16,
    Int8,
    PackedMatrix,
    WeightFormat,
    pack_weights,
)
from strawberry.generation.speculative import speculate
from strawberry.model.risks import declares, is_causal

ROOT = Path(__file__).parents[2]
RECIPES = [
    *sorted((ROOT / "recipes").glob("*.yaml")),
    ROOT / "recipes/original.json",
    *sorted((ROOT / "plugins").glob("*/recipes/*.yaml")),
]
QUICK = ("llama", "original_air", "moe", "mor_token_choice")
SMALL = ["model.vocab_size=256", "model.block_size=32", "tokenizer=bytes", "data=stdlib"]
OFF = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.05}
"""How far the logits of half the tokens may be off, as a share of their deviation.

Rounding may send a token to another expert, whose logits then differ as experts do.
"""


def built(path: Path) -> Any:
    torch.manual_seed(1)
    return strawberry.build(strawberry.load_recipe(path, SMALL)).eval()


def packed(model: Any, weights: WeightFormat) -> Any:
    model = copy.deepcopy(model)
    pack_weights(model, weights)
    return model


def greedy(model: Any, ids: Tensor, count: int) -> list[list[int]]:
    steps = sample_ids(model, ids, count, Sampling(0.0), torch.Generator())
    return [step.tolist() for step in steps]


def off(found: Tensor, expected: Tensor) -> float:
    each = (found - expected).std(-1) / expected.std(-1)
    return float(each.median())


@pytest.mark.parametrize("weights", get_args(WeightFormat))
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[] if p.stem in QUICK else pytest.mark.slow)
        for p in RECIPES
    ],
)
@torch.no_grad()
def test_every_recipe_gives_nearly_the_same(path: Path, weights: WeightFormat) -> None:
    """Logits of a prompt, and of tokens after a cache; in float32 the text of two rows too."""
    plain = built(path)
    model = packed(plain, weights)
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(2))
    expected = plain(ids)
    assert off(model(ids), expected) < OFF[weights]
    if declares(model, "cacheable") and is_causal(model):
        cache = model.new_cache(2, 9)
        steps = [model(ids[:, :5], cache), *(model(ids[:, t : t + 1], cache) for t in range(5, 9))]
        assert off(torch.cat(steps, dim=1), expected) < OFF[weights]
    made = greedy(model, ids, 5)
    assert len(made) == 5
    if weights == "float32":
        assert made == greedy(plain, ids, 5)
    else:
        assert any(isinstance(parameter, PackedMatrix) for parameter in model.parameters())


@pytest.mark.parametrize("weights", get_args(WeightFormat))
def test_a_draft_is_verified_with_the_same_weights(weights: WeightFormat) -> None:
    """Speculative decoding gives the text of plain decoding in every format."""
    stack = "model.stack=[{recur: 3, stack: [{attention: mha, ffn: mlp}]}]"
    recipe = strawberry.load_recipe(ROOT / "recipes/gpt2.yaml", [*SMALL, stack])
    model = packed(strawberry.build(recipe).eval(), weights)
    ids = torch.tensor([[5, 9, 3]])
    assert list(speculate(model, ids, 12, 1)) == [row[0] for row in greedy(model, ids, 12)]


class Foreign(nn.Module):
    """What someone else's plugin may do: a layer of torch's, and a matrix used by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.matrix = nn.Parameter(torch.randn(width, width) * 0.02)

    def forward(self, x: Tensor, use: Any) -> Tensor:
        """(..., width) -> the same."""
        return self.layer(x) + x @ self.matrix.T


@torch.no_grad()
def test_layers_of_others_are_packed_and_matrices_used_by_hand_are_not() -> None:
    """What matters is that `F.linear` gets it; a bias stays a bias."""
    plain = built(ROOT / "recipes/llama.yaml")
    for block in plain.stack.modules():
        if hasattr(block, "ffn"):
            block.ffn = Foreign(64)
    ids = torch.arange(6)[None]
    formats: list[tuple[WeightFormat, type[PackedMatrix]]] = [
        ("bfloat16", BFloat16),
        ("int8", Int8),
    ]
    for weights, form in formats:
        model = packed(plain, weights)
        foreign = next(m for m in model.modules() if isinstance(m, Foreign))
        assert isinstance(foreign.layer.weight, form)
        assert type(foreign.matrix) is nn.Parameter
        assert off(model(ids), plain(ids)) < OFF[weights]
    columns = packed(plain, "float32")
    foreign = next(m for m in columns.modules() if isinstance(m, Foreign))
    assert not foreign.layer.weight.is_contiguous()
    assert foreign.matrix.is_contiguous()


@torch.no_grad()
def test_a_tied_table_is_looked_up_in_full_and_multiplied_packed() -> None:
    """Embeddings are those of the plain table, bit for bit; logits are of the rounded one."""
    plain = built(ROOT / "recipes/gpt2.yaml")
    model = packed(plain, "int8")
    table, ids = model.embedding.weight, torch.arange(7)
    assert isinstance(table, Int8)
    assert torch.equal(
        model.embed(ids[None], model.use(ids[None])), plain.embed(ids[None], plain.use(ids[None]))
    )
    h = torch.randn(3, 64)
    rounded = F.linear(h, table.unpacked())
    torch.testing.assert_close(model.head_logits(h), rounded, rtol=0.02, atol=0.02)
    assert not torch.equal(model.head_logits(h), plain.head_logits(h))


@pytest.mark.parametrize("form", [BFloat16, Int8])
@torch.no_grad()
def test_what_is_no_product_sees_the_matrix_in_full(form: type[PackedMatrix]) -> None:
    """Sums, transposes, rows and lists; shape, dtype and device without reading it."""
    plain = torch.randn(24, 32)
    matrix = form(plain, also_plain=False)
    full = matrix.unpacked()
    assert (matrix.shape, matrix.dtype, matrix.device) == (plain.shape, plain.dtype, plain.device)
    torch.testing.assert_close(full, plain, rtol=0.01, atol=0.02)
    for found, expected in (
        (matrix + 1, full + 1),
        (matrix.T, full.T),
        (matrix[[3, 1]], full[[3, 1]]),
        (torch.cat([matrix, matrix]), torch.cat([full, full])),
        (F.linear(matrix, torch.eye(32)), full),
        (F.embedding(torch.tensor([2]), matrix), full[2:3]),
        (torch.ops.aten.mul.Tensor(matrix, 2), full * 2),
    ):
        assert type(found) is Tensor
        assert torch.equal(found, expected)


@pytest.mark.parametrize("form", [BFloat16, Int8])
@torch.no_grad()
def test_many_rows_go_as_few(form: type[PackedMatrix]) -> None:
    """Whichever kernel a number of rows takes, each row's result is that of the rounded matrix."""
    matrix, bias = form(torch.randn(40, 48), also_plain=False), torch.randn(40)
    for rows in (1, 2, FEW_ROWS - 1, FEW_ROWS, 3 * FEW_ROWS):
        x = torch.randn(rows, 48)
        expected = F.linear(x.bfloat16().float(), matrix.unpacked(), bias)
        torch.testing.assert_close(F.linear(x, matrix, bias), expected, rtol=0.02, atol=0.1)


def test_rows_that_the_kernel_would_read_past_stay_plain() -> None:
    """Torch's int8 kernel reads whole units: other widths are left to the plain product."""
    assert Int8.fits(torch.zeros(3, 32))
    assert not Int8.fits(torch.zeros(3, 36))
    assert BFloat16.fits(torch.zeros(3, 36))
    assert not BFloat16.fits(torch.zeros(3, 36, dtype=torch.float64))


def test_bytes_fall_as_said() -> None:
    """Two bytes a number, or one and two for each row; nothing of the plain matrix is kept."""
    plain = torch.randn(64, 32)
    half, eighth = BFloat16(plain, also_plain=False), Int8(plain, also_plain=False)
    assert half.plain is eighth.plain is None
    assert half.rounded.nbytes == plain.nbytes // 2
    assert eighth.whole.nbytes + eighth.scale.nbytes == plain.nbytes // 4 + 2 * 64


def test_refusals() -> None:
    """A model in training is not packed, nor is there any other format."""
    model = built(ROOT / "recipes/llama.yaml")
    with pytest.raises(StrawberryError, match="write one of float32, bfloat16, int8"):
        pack_weights(model, "int4")  # type: ignore[arg-type]
    with pytest.raises(StrawberryError, match="eval"):
        pack_weights(model.train(), "int8")
    assert all(parameter.requires_grad for parameter in model.parameters())
