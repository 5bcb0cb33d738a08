"""The common form of a recipe and a checkpoint of transformers: the shape, and the tensors.

A `Shape` is read from either and written as either; `parts` pairs the tensors of the two. V is the
vocabulary, C the model's width, H and G query and key heads of width D, F the network's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from strawberry.errors import StrawberryError

GATES = {
    "swiglu": "silu",
    "geglu": "gelu",
    "reglu": "relu",
    "glu": "sigmoid",
    "bilinear": "linear",
}
"""Gated networks, and how transformers calls the activation of the gate."""

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "relu2": "relu2"}
"""Activations of `mlp`, and how transformers calls them."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model that both sides can express.

    Attributes:
        model_type: transformers' name of the architecture.
        vocab_size: V.
        length: the longest sequence that positions are made for.
        width: C.
        depth: number of blocks.
        n_head: H.
        n_kv_head: G.
        head_width: D.
        hidden: F.
        ffn: `mlp`, or a name of `GATES`.
        activation: of an `mlp`, a name of `ACTIVATIONS`.
        eps: of the normalisations.
        tied: whether the head is the embedding table.
        attention_bias: whether attention's matrices have biases.
        ffn_bias: whether those of the network have.
        base: of the rotation.
        stretch: factor of linearly scaled positions.
        window: how many tokens a query sees; None for all.
        qk_norm: whether queries and keys are normalised.
        dropout: probability, in training.
    """

    model_type: str
    vocab_size: int
    length: int
    width: int
    depth: int
    n_head: int
    n_kv_head: int
    head_width: int
    hidden: int
    eps: float
    tied: bool
    ffn: str = "mlp"
    activation: str = "gelu"
    attention_bias: bool = False
    ffn_bias: bool = False
    base: float = 10000.0
    stretch: float = 1.0
    window: int | None = None
    qk_norm: bool = False
    dropout: float = 0.0

    @property
    def is_gpt2(self) -> bool:
        """True for GPT-2's architecture; else it is one of Llama's family."""
        return self.model_type == "gpt2"


@dataclass(frozen=True, slots=True)
class Part:
    """A module of ours, and what it is called there: one, or several whose rows are stacked.

    Attributes:
        ours: path of the module in our model.
        theirs: paths in a checkpoint of transformers.
        rows: how many rows each of `theirs` has.
        bias: whether ours has a bias.
        their_bias: whether theirs has one; where only one side has, it is zeros.
        transposed: whether theirs is stored (in, out).
        orders: for each of `theirs` the order of our rows that is theirs, or None for the same.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...]
    bias: bool = False
    their_bias: bool = False
    transposed: bool = False
    orders: tuple[Tensor | None, ...] = ()


def parts(shape: Shape, blocks: list[str]) -> Iterator[Part]:
    """All modules with parameters; `blocks` are the paths of our blocks, first to last."""
    gpt2 = shape.is_gpt2
    yield Part("embedding", ("wte" if gpt2 else "embed_tokens",), (shape.vocab_size,))
    if gpt2:
        yield Part("positional.table", ("wpe",), (shape.length,))
    for index, block in enumerate(blocks):
        inside = _gpt2_block(shape) if gpt2 else _llama_block(shape)
        prefix = f"h.{index}" if gpt2 else f"layers.{index}"
        for part in inside:
            theirs = tuple(f"{prefix}.{name}" for name in part.theirs)
            yield replace(part, ours=f"{block}.{part.ours}", theirs=theirs)
    yield Part("norm", ("ln_f" if gpt2 else "norm",), (shape.width,), gpt2, gpt2)
    if not shape.tied:
        yield Part("head", ("lm_head",), (shape.vocab_size,))


def _llama_block(shape: Shape) -> Iterator[Part]:
    C, D, F = shape.width, shape.head_width, shape.hidden
    attention, ffn = shape.attention_bias, shape.ffn_bias
    ours = attention or ffn  # a recipe has biases everywhere, or nowhere
    # Qwen2 has biases on queries, keys and values alone.
    out = attention and shape.model_type != "qwen2"
    qkv = tuple(f"self_attn.{name}_proj" for name in "qkv")
    rows = (shape.n_head * D, shape.n_kv_head * D, shape.n_kv_head * D)
    yield Part("attention_norm", ("input_layernorm",), (C,))
    yield Part("attention.qkv", qkv, rows, ours, attention)
    if shape.qk_norm:
        yield Part("attention.q_norm", ("self_attn.q_norm",), (D,))
        yield Part("attention.k_norm", ("self_attn.k_norm",), (D,))
    yield Part("attention.out", ("self_attn.o_proj",), (C,), ours, out)
    yield Part("ffn_norm", ("post_attention_layernorm",), (C,))
    yield Part("ffn.up", ("mlp.up_proj", "mlp.gate_proj"), (F, F), ours, ffn)
    yield Part("ffn.down", ("mlp.down_proj",), (C,), ours, ffn)


def _gpt2_block(shape: Shape) -> Iterator[Part]:
    C = shape.width
    ours = shape.attention_bias
    yield Part("attention_norm", ("ln_1",), (C,), True, True)
    yield Part("attention.qkv", ("attn.c_attn",), (3 * C,), ours, True, True)
    yield Part("attention.out", ("attn.c_proj",), (C,), ours, True, True)
    yield Part("ffn_norm", ("ln_2",), (C,), True, True)
    yield Part("ffn.up", ("mlp.c_fc",), (shape.hidden,), ours, True, True)
    yield Part("ffn.down", ("mlp.c_proj",), (C,), ours, True, True)


def theirs_of(part: Part, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a part as transformers has them, by name; absent gains are ones."""
    gain = torch.ones(sum(part.rows))
    kinds = [("weight", state.get(f"{part.ours}.weight", gain))]
    if part.their_bias:
        kinds.append(("bias", state.get(f"{part.ours}.bias", torch.zeros(sum(part.rows)))))
    for kind, whole in kinds:
        orders = part.orders or (None,) * len(part.rows)
        pieces = torch.split(whole, list(part.rows))
        for name, piece, order in zip(part.theirs, pieces, orders, strict=True):
            rows = piece if order is None else piece[order]
            turned = rows.T if part.transposed and rows.ndim == 2 else rows
            yield f"{name}.{kind}", turned.contiguous()


def ours_of(part: Part, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors of a part, by name; what is used of `found` is taken out of it.

    Raises StrawberryError if a tensor is missing, or has too many or too few rows.
    """
    for kind in ("weight", "bias") if part.bias else ("weight",):
        pieces = []
        for name, rows in zip(part.theirs, part.rows, strict=True):
            if kind == "bias" and not part.their_bias:
                pieces.append(torch.zeros(rows))
                continue
            piece = tensors.pop(f"{name}.{kind}", None)
            if piece is None:
                raise StrawberryError(f"there is no tensor {name}.{kind}")
            piece = piece.T if part.transposed and piece.ndim == 2 else piece
            if piece.shape[0] != rows:
                have = piece.shape[0]
                raise StrawberryError(f"tensor {name}.{kind} is for {have} features, not {rows}")
            pieces.append(piece)
        yield f"{part.ours}.{kind}", torch.cat(pieces)
