"""`config.json` of a checkpoint of transformers, as plain JSON: nothing of it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strawberry.errors import StrawberryError
from strawberry_hf.shape import ACTIVATIONS, GATES, Shape

CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""The architectures that can be read, and transformers' class of each."""

_GELU_TANH = ("gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh")
"""Other names of `gelu_new`, or of something that differs from it by rounding."""


def config_of(shape: Shape) -> dict[str, Any]:
    """The shape in a `config.json`, read alike for versions 4 and 5 of transformers."""
    common = {
        "architectures": [CLASSES[shape.model_type]],
        "model_type": shape.model_type,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "float32",
    }
    if shape.is_gpt2:
        return {
            **common,
            "n_positions": shape.length,
            "n_embd": shape.width,
            "n_layer": shape.depth,
            "n_head": shape.n_head,
            "n_inner": shape.hidden,
            "activation_function": ACTIVATIONS[shape.activation],
            "layer_norm_epsilon": shape.eps,
            "attn_pdrop": shape.dropout,
            "embd_pdrop": shape.dropout,
            "resid_pdrop": shape.dropout,
        }
    scaling = None if shape.stretch == 1 else {"rope_type": "linear", "factor": shape.stretch}
    config = {
        **common,
        "max_position_embeddings": shape.length,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_kv_head,
        "head_dim": shape.head_width,
        "intermediate_size": shape.hidden,
        "hidden_act": GATES[shape.ffn],
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.base,
        "rope_scaling": scaling,
    }
    if shape.model_type == "mistral":
        return {**config, "sliding_window": shape.window}
    return {**config, "attention_bias": shape.attention_bias, "mlp_bias": shape.ffn_bias}


def shape_of_config(config: Mapping[str, Any], path: Path) -> Shape:
    """The shape that a `config.json` describes.

    Raises:
        StrawberryError: it is of another architecture, or has a part that can't be expressed.
    """
    reader = _Config(config, path)
    model_type = reader.get("model_type", str, "(none)")
    if model_type not in CLASSES:
        known = ", ".join(CLASSES)
        raise reader.problem("model_type", f"{model_type!r} can't be read; {known} can")
    if config.get("auto_map"):
        raise reader.problem("auto_map", "the model brings code of its own, which is never run")
    if config.get("quantization_config"):
        raise reader.problem("quantization_config", "quantised weights can't be read")
    return _gpt2(reader) if model_type == "gpt2" else _llama(reader, model_type)


class _Config:
    """A parsed `config.json`, and complaints about it."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values = values
        self.path = path

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """A value of that type, or the default where it is absent or null."""
        value = self.values.get(key)
        value = default if value is None else value
        if kind is float and type(value) is int:
            value = float(value)
        if value is None:
            raise self.problem(key, "is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.problem(key, f"expected {kind.__name__}, got {value!r}")
        return value

    def require(self, key: str, value: Any) -> None:
        """Refuse any other value of `key`, absent ones aside."""
        if self.values.get(key) not in (None, value):
            raise self.problem(key, f"{self.values[key]!r} can't be expressed, only {value!r}")

    def problem(self, key: str, message: str) -> StrawberryError:
        """An error about a key."""
        return StrawberryError(f"{self.path}: {key}: {message}")


def _gpt2(config: _Config) -> Shape:
    for key, value in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        config.require(key, value)
    activation = config.get("activation_function", str, "gelu_new")
    names = {theirs: ours for ours, theirs in ACTIVATIONS.items()}
    names |= dict.fromkeys(_GELU_TANH, "gelu_tanh")
    if activation not in names:
        raise config.problem("activation_function", _unknown(activation, names))
    width, n_head = config.get("n_embd", int, 768), config.get("n_head", int, 12)
    return Shape(
        model_type="gpt2",
        vocab_size=config.get("vocab_size", int),
        length=config.get("n_positions", int, 1024),
        width=width,
        depth=config.get("n_layer", int, 12),
        n_head=n_head,
        n_kv_head=n_head,
        head_width=width // n_head,
        hidden=config.get("n_inner", int, 4 * width),
        activation=names[activation],
        eps=config.get("layer_norm_epsilon", float, 1e-5),
        tied=config.get("tie_word_embeddings", bool, True),
        attention_bias=True,
        ffn_bias=True,
        dropout=config.get("resid_pdrop", float, 0.1),
    )


def _llama(config: _Config, model_type: str) -> Shape:
    n_head = config.get("num_attention_heads", int)
    width = config.get("hidden_size", int)
    gate = config.get("hidden_act", str, "silu")
    names = {theirs: ours for ours, theirs in GATES.items()}
    if gate not in names:
        raise config.problem("hidden_act", _unknown(gate, names))
    config.require("partial_rotary_factor", 1.0)
    base, stretch = _rope(config)
    head_width = config.get("head_dim", int, 128 if model_type == "qwen3" else width // n_head)
    return Shape(
        model_type=model_type,
        vocab_size=config.get("vocab_size", int),
        length=config.get("max_position_embeddings", int, 2048),
        width=width,
        depth=config.get("num_hidden_layers", int),
        n_head=n_head,
        n_kv_head=config.get("num_key_value_heads", int, n_head),
        head_width=head_width,
        hidden=config.get("intermediate_size", int),
        ffn=names[gate],
        eps=config.get("rms_norm_eps", float, 1e-6),
        tied=config.get("tie_word_embeddings", bool, False),
        attention_bias=model_type == "qwen2" or config.get("attention_bias", bool, False),
        ffn_bias=config.get("mlp_bias", bool, False),
        base=base,
        stretch=stretch,
        window=_window(config, model_type),
        qk_norm=model_type == "qwen3",
    )


def _rope(config: _Config) -> tuple[float, float]:
    """Base and linear factor of the rotation, in the words of version 4 or of version 5."""
    values = config.values
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise config.problem("rope_scaling", f"expected a mapping, got {rope!r}")
    key = "rope_parameters" if values.get("rope_parameters") else "rope_scaling"
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear"):
        raise config.problem(key, f"scaling {kind!r} can't be expressed, only 'linear'")
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise config.problem(key, "a rotation of a part of each head can't be expressed")
    base = rope.get("rope_theta", values.get("rope_theta")) or 10000.0
    factor = rope.get("factor", 1.0) if kind == "linear" else 1.0
    for number in (base, factor):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise config.problem(key, f"expected a number, got {number!r}")
    return float(base), float(factor)


def _window(config: _Config, model_type: str) -> int | None:
    """The window that all blocks have; raises StrawberryError if only some have one."""
    kinds = set(config.get("layer_types", list, []))
    if len(kinds) > 1:
        raise config.problem("layer_types", "blocks that differ can't be expressed")
    if kinds == {"full_attention"}:
        return None
    if model_type.startswith("qwen") and not kinds:
        config.require("use_sliding_window", False)
        return None
    if model_type == "llama":
        return None
    if config.values.get("sliding_window") is None:
        return None
    window: int = config.get("sliding_window", int)
    return window


def _unknown(name: str, known: Mapping[str, str]) -> str:
    return f"{name!r} can't be expressed; {', '.join(known)} can"
