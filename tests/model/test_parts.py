"""Which matrices are in a tensor: what each component declares, against rows by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch

import strawberry
from strawberry.contracts import Bank, MatrixLayout, ParameterInfo, Projection, interleaved
from strawberry.errors import RecipeError
from strawberry.model.language_model import LanguageModel
from strawberry.plugin import Plugins
from tests.support import REGISTRY, tiny

C, D = 16, 4
"""The width of `tiny`, and of each of four heads."""


def block(*, first: int = 0, of: int, times: int = 4, width: int = D) -> list[int]:
    """The rows of a part that comes head by head, `width` in each run of `of`, from `first` on."""
    return [head * of + first + row for head in range(times) for row in range(width)]


def run(first: int, rows: int) -> list[int]:
    """Rows that lie together."""
    return list(range(first, first + rows))


QKV = {"q": run(0, 16), "k": run(16, 16), "v": run(32, 16)}
GATED = {"up": run(0, 48), "gate": run(48, 48)}
HIDDEN = {"n_ffn": 48}
ROWS: list[tuple[str, dict[str, Any], str, dict[str, list[int]]]] = [
    ("attention/mha", {}, "qkv", QKV),
    ("attention/mha", {"n_kv_head": 2}, "qkv",
     {"q": run(0, 16), "k": run(16, 8), "v": run(24, 8)}),
    ("attention/aft_simple", {}, "qkv", QKV),
    ("attention/aft_full", {}, "qkv", QKV),
    ("attention/aft_local", {}, "qkv", QKV),
    ("attention/aft_conv", {"n_head": 4}, "qkv",
     {"q": run(0, 16), "k": run(16, 4), "v": run(20, 16)}),
    ("attention/aft_simple", {"head": "swiglu", **HIDDEN}, "swiglu", GATED),
    ("attention/linear", {"n_v": 24}, "qkv",
     {"q": run(0, 16), "k": run(16, 16), "v": run(32, 24)}),
    ("attention/expert_abundance", {}, "qkv",
     {"q": block(of=12), "k": block(first=4, of=12), "v": block(first=8, of=12)}),
    ("attention/expert_abundance", HIDDEN, "swiglu", GATED),
    ("attention/expert_abundance", {"experts": 2, **HIDDEN}, "swiglu", GATED),
    ("attention/expert_abundance", {"experts": 2, "n_kv_head": 1}, "kv",
     {"k": run(0, 4), "v": run(4, 4)}),
    ("attention/moe_attention", {"n_kv_head": 2}, "kv", {"k": run(0, 8), "v": run(8, 8)}),
    ("attention/mla", {"rope_width": 2, "v_width": 5}, "q",
     {"q": block(of=6), "q_rope": block(first=4, of=6, width=2)}),
    ("attention/mla", {"rope_width": 2, "v_width": 5}, "kv_up",
     {"k": block(of=9), "v": block(first=4, of=9, width=5)}),
    ("attention/mla", {"kv_rank": 6, "rope_width": 2}, "kv_down",
     {"latent": run(0, 6), "k_rope": run(6, 2)}),
    ("attention/silia", {"n_qkv": 16}, "first.qkvg",
     {name: block(first=4 * i, of=16) for i, name in enumerate("qkvg")}),
    ("attention/silia", {}, "first.out", {"up": run(0, 16), "gate": run(16, 16)}),
    ("attention/retained_2360c08", {"n_qkv": 32}, "qkv",
     {"q": run(0, 32), "k": run(32, 32), "v": run(64, 32)}),
    ("attention/retained_2360c08", {"n_qkv": 32}, "glu", {"up": run(0, 16), "gate": run(16, 16)}),
    ("attention/retained_2360c08", {"n_qkv": 32}, "statistic", {"o": run(0, 16), "a": run(16, 16)}),
    ("attention/retained_2360c08", {"n_qkv": 32}, "transform",
     {"q": run(0, 32), "k": run(32, 32), "v": run(64, 32), "up": run(96, 32),
      "gate": run(128, 32), "out": run(160, 16)}),
    ("attention/retained_fb0a8c9", {"n_qkv": 32}, "glu", {"up": run(0, 16), "gate": run(16, 16)}),
    *(("ffn/" + name, HIDDEN, "up", GATED)
      for name in ("swiglu", "geglu", "reglu", "glu", "bilinear", "moe")),
    ("ffn/moe", {"shared": 1, "expert": "swiglu", **HIDDEN}, "shared.0", GATED),
]  # fmt: skip
"""Component, its fields, one of its projections, and the rows of each matrix there."""

FUSES_NOTHING = {"attention/ngram_heads", "ffn/channel_mix", "ffn/mlp", "ffn/half"}


RECIPE = Path(__file__).parents[2] / "recipes" / "llama.yaml"
WRONG = """
from strawberry.contracts import FFN
from strawberry.plugin import hookimpl

class Wrong(FFN):
    def __init__(self, site):
        super().__init__()
        self.up = site.projection("up", 32, site.n_embd, parts={"up": 16, "gate": 15})

    def forward(self, x, use):
        return x

@hookimpl
def strawberry_register(registry):
    registry.ffn("wrong", Wrong)
"""


def model_of(name: str, fields: dict[str, Any], **model: Any) -> LanguageModel:
    """A block of this component alone, or behind a recursion."""
    kind, _, use = name.partition("/")
    entry = {kind: {"use": use, **fields}}
    return strawberry.build(tiny(entry, **model), "meta")


def info_of(model: LanguageModel, ending: str) -> ParameterInfo:
    """The parameter whose name ends so."""
    (found,) = [i for i in model.parameter_infos() if i.name.endswith(f".{ending}")]
    return found


@pytest.mark.parametrize(("name", "fields", "projection", "rows"), ROWS)
def test_every_matrix_is_where_its_rows_are(
    name: str, fields: dict[str, Any], projection: str, rows: dict[str, list[int]]
) -> None:
    """Split, a tensor of row numbers gives the rows that the table has for each matrix."""
    info = info_of(model_of(name, fields), f"{projection}.weight")
    layout = info.layout
    assert [part.name for part in layout.parts] == list(rows)
    numbers = torch.arange(info.parameter.shape[-2])[:, None].expand(info.parameter.shape[-2:])
    pieces = layout.split(numbers.contiguous())
    assert [piece[0, :, 0].tolist() for piece in pieces] == list(rows.values())
    assert [(m.fan_out, m.fan_in) for m in info.matrices()] == [
        (len(own), info.parameter.shape[-1]) for own in rows.values()
    ]


def test_no_component_is_left_out() -> None:
    """Every attention and every network of the registry is in the table, or has nothing fused."""
    known = {name for name, *_ in ROWS} | FUSES_NOTHING
    entries = [e for kind in ("attention", "ffn") for e in REGISTRY.entries(kind)]
    assert {f"{e.kind}/{e.name}" for e in entries} <= known


@pytest.mark.parametrize(
    ("weights", "ending", "expected"),
    [
        ("owned", "qkv.weight", {"q": 16, "k": 8, "v": 8}),
        ("owned", "qkv.bias", {"q": 16, "k": 8, "v": 8}),
        ("shared", "matrices.attention_qkv_32x16", {"q": 16, "k": 8, "v": 8}),
        ("factorized", "bases.attention_qkv_32x16", {"q": 16, "k": 8, "v": 8}),
        ("factorized", "bases.ffn_down_16x48", {"down": 48}),
        ("factorized", "blocks.0", {"0": 16}),
        ("fast_weights", "qkv.weight", {"q": 16, "k": 8, "v": 8}),
        ({"use": "fast_weights", "form": "chunk", "rule": "swap"}, "qkv.transform",
         {"q": 16, "k": 8, "v": 8}),
        ({"use": "fast_weights", "form": "chunk"}, "qkv.mix", {"mix": 16}),
        ("step_lora", "qkv.base.weight", {"q": 16, "k": 8, "v": 8}),
        ("step_lora", "qkv.deltas.up.1", {"q": 16, "k": 8, "v": 8}),
        ("step_lora", "qkv.deltas.down.1", {"1": 8}),
        ("retained", "qkv.part.weight", {"q": 16, "k": 8, "v": 8}),
        ("retained", "qkv.part.transform", {"q": 16, "k": 8, "v": 8}),
        ({"use": "retained", "rank": 3}, "qkv.part.left", {"q": 16, "k": 8, "v": 8}),
        ({"use": "retained", "rank": 3}, "qkv.part.right", {"right": 16}),
    ],
)  # fmt: skip
def test_every_source_says_where_they_are(
    weights: Any, ending: str, expected: dict[str, int]
) -> None:
    """Of a projection's parameters, those that have its rows have its matrices; factors are one."""
    inside = {"attention": {"use": "mha", "n_kv_head": 2}, "ffn": {"use": "swiglu", "n_ffn": 48}}
    stack = {"recur": 2, "weights": weights, "stack": [inside]}
    info = info_of(strawberry.build(tiny(stack, bias=True), "meta"), ending)
    assert {part.name: part.rows for part in info.layout.parts} == expected


@pytest.mark.parametrize("source", [entry.name for entry in REGISTRY.entries("weights")])
def test_no_source_fuses_in_silence(source: str) -> None:
    """Under every weight source of the registry, over everything that asks it for matrices.

    What has the rows of a fused projection has its matrices; a share of the rows has a share.
    """
    asked = {(name, str(fields)): fields for name, fields, *_ in ROWS}
    seen = 0
    for (name, _), fields in asked.items():
        kind, _, use = name.partition("/")
        inside = {kind: {"use": use, **fields}}
        try:
            model = strawberry.build(
                tiny({"recur": 2, "weights": source, "stack": [inside]}), "meta"
            )
        except RecipeError:  # banks that a source has none of
            continue
        every = [m.parts for m in model.modules() if isinstance(m, (Projection, Bank))]
        fused = [parts for parts in every if len(parts.parts) > 1]
        plain = [parts for parts in every if len(parts.parts) == 1]
        for info in model.parameter_infos():
            rows = info.parameter.shape[-2] if info.parameter.ndim > 1 else 0
            names = [[part.name for part in parts.parts] for parts in fused if parts.rows == rows]
            # Factors have the rows of a low rank, of the width, or of something plain.
            if info.kind not in ("matrix", "bank") or not names or rows <= C:
                continue
            names += [[part.name for part in parts.parts] for parts in plain]
            assert [part.name for part in info.layout.parts] in names, (name, info.name)
            seen += 1
    assert seen > 5


def test_factors_of_a_stack_are_those_of_its_matrices() -> None:
    """The rows of experts' factors, one under the other, are a matrix for each expert and part."""
    stack = {"weights": "factorized", "ffn": {"use": "moe", "experts": 3, "n_ffn": 48}}
    info = info_of(strawberry.build(tiny(stack), "meta"), "bases.ffn_up_3x96x16")
    assert [(m.name, m.count, m.fan_out, m.fan_in) for m in info.matrices()] == [
        ("up", 3, 48, 4),
        ("gate", 3, 48, 4),
    ]


def test_tables_are_never_matrices() -> None:
    """Tied or not, embeddings and heads have no logical matrix, nor do gains."""
    for tied in (True, False):
        infos = model_of("attention/mha", {}, tie_embeddings=tied).parameter_infos()
        found = {i.name for i in infos if i.matrices()}
        assert found == {"stack.nodes.0.attention.qkv.weight", "stack.nodes.0.attention.out.weight"}


def test_heads_are_rows_of_their_matrix() -> None:
    """By head each piece has the rows of one head, whether or not they lie together."""
    numbers = torch.arange(24)[:, None]
    together = MatrixLayout.of({"q": (4, 2), "k": (2, 2), "v": (2, 6)})
    q, k, v = (piece[..., 0].tolist() for piece in together.split(numbers, "head"))
    assert q == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert k == [[8, 9], [10, 11]]
    assert v == [[12, 13, 14, 15, 16, 17], [18, 19, 20, 21, 22, 23]]
    grouped = interleaved(2, {"q": (4, 3), "k": (2, 6)})  # [q q k | q q k]
    q, k = (piece[..., 0].tolist() for piece in grouped.split(numbers, "head"))
    assert q == [[0, 1, 2], [3, 4, 5], [12, 13, 14], [15, 16, 17]]
    assert k == [[6, 7, 8, 9, 10, 11], [18, 19, 20, 21, 22, 23]]


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Rows that don't add up, at the component's line; heads that don't divide, where declared."""
    with pytest.raises(ValueError, match="4 rows of q with 2 heads can't form 3 equal groups"):
        interleaved(3, {"q": (2, 2)})
    (tmp_path / "wrong.py").write_text(WRONG)
    plugins = Plugins.load(files=[tmp_path / "wrong.py"])
    recipe = strawberry.load_recipe(RECIPE, ["model.stack.*.ffn=wrong"], plugins=plugins)
    with pytest.raises(
        RecipeError, match="its matrix up has 32 rows, but its parts have 31"
    ) as caught:
        strawberry.build(recipe, "meta")
    assert caught.value.problems[0].path == "model.stack[0].ffn"
