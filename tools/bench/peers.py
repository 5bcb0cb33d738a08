"""Models of one shape, by other libraries and by us; each function imports what it needs.

nanoGPT and the original project are files that the user has; the others are installed packages:

    pip install transformers x-transformers litgpt
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from handwritten import Shape
from torch import Tensor, nn
from torch.nn import functional as F
from turns import variant
from workers import Absent

from strawberry.recipe import Recipe

SHAPES = {
    "S": Shape(vocabulary=8192, length=256, batch=4, layers=2, heads=4, width=64),
    "M": Shape(vocabulary=8192, length=256, batch=8, layers=6, heads=6, width=384),
}


def recipe(name: str, shape: Shape) -> Recipe:
    """A recipe of recipes/ at a shape: gpt2, llama, or air with its own eight block uses."""
    sizes = {"vocab_size": shape.vocabulary, "block_size": shape.length, "n_embd": shape.width}
    if name == "gpt2":
        attention: dict[str, Any] = {"use": "mha", "n_head": shape.heads}
        ffn = {"use": "mlp", "n_ffn": 4 * shape.width, "activation": "gelu"}
    elif name == "llama":
        attention = {"use": "mha", "n_head": shape.heads, "n_kv_head": shape.kv_heads}
        ffn = {"use": "swiglu", "n_ffn": shape.hidden}
    else:
        return variant(f"{name}.yaml", **sizes)
    stack = [{"repeat": shape.layers, "attention": attention, "ffn": ffn}]
    return variant(f"{name}.yaml", **sizes, stack=stack)


def nanogpt(path: str, shape: Shape) -> nn.Module:
    """The model of nanoGPT out of its `model.py`."""
    module = from_file(path, "GPTConfig")
    config = module.GPTConfig(
        block_size=shape.length,
        vocab_size=shape.vocabulary,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.width,
        dropout=0.0,
        bias=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        model: nn.Module = module.GPT(config)
    return model


def original(path: str, shape: Shape) -> nn.Module:
    """The original project's model out of its `model.py`, sized as recipes/original_air.yaml."""
    module = from_file(path, "Strawberry")
    config = module.Config(
        vocab_size=shape.vocabulary,
        block_size=shape.length,
        n_layer=4,
        n_head=4,
        n_embd=shape.width,
        n_qkv=256,
    )
    model: nn.Module = module.Strawberry(config)
    return model


def transformers(shape: Shape, length: int | None = None) -> nn.Module:
    """LlamaForCausalLM."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig
    config = config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=length or shape.length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def x_transformers(shape: Shape, length: int | None = None) -> nn.Module:
    """A decoder of x-transformers with llama's parts."""
    from x_transformers import Decoder, TransformerWrapper

    return TransformerWrapper(
        num_tokens=shape.vocabulary,
        max_seq_len=length or shape.length,
        use_abs_pos_emb=False,
        attn_layers=Decoder(
            dim=shape.width,
            depth=shape.layers,
            heads=shape.heads,
            attn_dim_head=shape.head,
            attn_kv_heads=shape.kv_heads,
            attn_flash=True,
            rotary_pos_emb=True,
            use_rmsnorm=True,
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            ff_mult=shape.hidden / shape.width,
        ),
    )


def litgpt(shape: Shape, length: int | None = None) -> nn.Module:
    """The GPT of litgpt with llama's parts."""
    from litgpt import GPT, Config

    return GPT(
        Config(
            name="bench",
            block_size=length or shape.length,
            vocab_size=shape.vocabulary,
            padded_vocab_size=shape.vocabulary,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.width,
            n_query_groups=shape.kv_heads,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=shape.hidden,
        )
    )


def logits_of(model: nn.Module, idx: Tensor) -> Tensor:
    """Logits (B, T, V), whichever form a library returns them in."""
    found = model(idx)
    return found if isinstance(found, Tensor) else found.logits


def plain_loss(model: nn.Module, idx: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of all logits at once, as these libraries train."""
    return F.cross_entropy(logits_of(model, idx).flatten(0, 1), targets.flatten())


def from_file(path: str, name: str) -> ModuleType:
    """A module out of a file that the user has; raises Absent if there is none with that name."""
    file = Path(path)
    file = file / "model.py" if file.is_dir() else file
    if not file.exists():
        raise Absent(f"{file} is not there")
    spec = importlib.util.spec_from_file_location(f"peer_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise Absent(f"{file} has no {name}")
    return module


def take_weights(hand: Any, model: Any) -> None:
    """Give the hand-written llama the weights of an assembled one."""
    blocks = [visit.block for visit in model.visits()]
    pairs = [(hand.embedding.weight, model.embedding.weight), (hand.norm, model.norm.weight)]
    pairs.append((hand.head.weight, model.head.weight))
    for layer, block in zip(hand.layers, blocks, strict=True):
        pairs += [
            (layer.norm1, block.attention_norm.weight),
            (layer.qkv.weight, block.attention.qkv.weight),
            (layer.out.weight, block.attention.out.weight),
            (layer.norm2, block.ffn_norm.weight),
            (layer.up.weight, block.ffn.up.weight),
            (layer.down.weight, block.ffn.down.weight),
        ]
    with torch.no_grad():
        for mine, theirs in pairs:
            mine.copy_(theirs)
