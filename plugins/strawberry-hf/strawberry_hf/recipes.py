"""Recipes with a counterpart in transformers, and the recipe of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from strawberry.errors import Problem, RecipeError
from strawberry.model import LanguageModel
from strawberry.recipe import BlockSpec, ComponentSpec, NodeSpec, Recipe, RecurSpec
from strawberry_hf.shape import GATES, Shape

OWNED = "strawberry/owned"
MHA = "strawberry/mha"


def shape_of_recipe(recipe: Recipe, model: LanguageModel) -> Shape:
    """The shape of a recipe's model.

    Raises RecipeError: at its place, each part that no architecture of transformers has which can
    be written here: Llama, Mistral, Qwen3, GPT-2.
    """
    problems = list(_refused(recipe))
    if problems:
        raise RecipeError(problems)
    spec = recipe.model
    block = next(_blocks(spec.stack))
    assert block.attention is not None
    assert block.ffn is not None
    attention, positional = block.attention.fields, spec.positional.fields
    gpt2 = _name(spec.positional) == "learned"
    n_head = int(attention["n_head"])
    down = model.get_parameter(f"{model.visits()[0].path}.ffn.down.weight")
    head_width = (attention["n_qkv"] or spec.n_embd) // n_head
    linear = not gpt2 and positional["scaling"] == "linear"
    return Shape(
        model_type=_model_type(gpt2, attention),
        vocab_size=spec.vocab_size,
        length=spec.block_size,
        width=spec.n_embd,
        depth=len(model.visits()),
        n_head=n_head,
        n_kv_head=attention["n_kv_head"] or n_head,
        head_width=head_width,
        hidden=down.shape[1],
        ffn=_name(block.ffn),
        activation=block.ffn.fields.get("activation", "gelu"),
        eps=spec.norm.fields["eps"],
        tied=spec.tie_embeddings,
        attention_bias=spec.bias,
        ffn_bias=spec.bias,
        base=10000.0 if gpt2 else _base(positional, head_width),
        stretch=positional["factor"] if linear else 1.0,
        window=attention["window"],
        qk_norm=attention["qk_norm"],
        dropout=spec.dropout,
    )


def head_order(recipe: Recipe, head_width: int) -> Tensor | None:
    """The order of a query or key head's rows that is transformers', or None for the same.

    There a pair is i and i + D/2, and turns by +angle; what turns by -angle is the other one of
    each pair.
    """
    rope = recipe.model.positional
    if _name(rope) != "rope" or (rope.fields["layout"], rope.fields["sign"]) == ("half", 1):
        return None
    rows = torch.arange(head_width)
    pairs = rows.view(-1, 2).T if rope.fields["layout"] == "interleaved" else rows.view(2, -1)
    return (pairs if rope.fields["sign"] == 1 else pairs.flip(0)).flatten()


def model_section(shape: Shape, block_size: int) -> dict[str, Any]:
    """The `model` section of a recipe of that shape."""
    attention: dict[str, Any] = {"use": MHA, "n_head": shape.n_head}
    positional: dict[str, Any]
    if shape.is_gpt2:
        ffn = {"use": "strawberry/mlp", "activation": shape.activation}
        norm, positional = "strawberry/layernorm", {"use": "strawberry/learned"}
    else:
        attention |= {
            "n_kv_head": shape.n_kv_head,
            "n_qkv": shape.n_head * shape.head_width,
            "qk_norm": shape.qk_norm,
            "window": shape.window,
        }
        ffn = {"use": f"strawberry/{shape.ffn}"}
        norm, positional = "strawberry/rmsnorm", {"use": "strawberry/rope", "base": shape.base}
        if shape.stretch != 1:
            positional |= {"scaling": "linear", "factor": shape.stretch}
    block = {"attention": attention, "ffn": {**ffn, "n_ffn": shape.hidden}}
    return {
        "vocab_size": shape.vocab_size,
        "block_size": block_size,
        "n_embd": shape.width,
        "tie_embeddings": shape.tied,
        "bias": shape.attention_bias or shape.ffn_bias,
        "dropout": shape.dropout,
        "norm": {"use": norm, "eps": shape.eps},
        "positional": positional,
        "stack": [{"repeat": shape.depth, "stack": [block]}],
    }


def _name(spec: ComponentSpec) -> str:
    """A built-in component's short name, or another's full one."""
    return spec.use.removeprefix("strawberry/")


def _model_type(gpt2: bool, attention: Any) -> str:
    if gpt2:
        return "gpt2"
    if attention["qk_norm"]:
        return "qwen3"
    return "mistral" if attention["window"] is not None else "llama"


def _base(rope: Any, rotated: int) -> float:
    """The base of the rotation; what ntk scaling does is another one."""
    base: float = rope["base"]
    if rope["scaling"] == "ntk":
        base *= rope["factor"] ** (rotated / (rotated - 2))
    return base


def _blocks(nodes: tuple[NodeSpec, ...]) -> Iterator[BlockSpec]:
    for node in nodes:
        if isinstance(node, BlockSpec):
            yield node
        else:
            yield from _blocks(node.stack)


# What has no counterpart


def _refused(recipe: Recipe) -> Iterator[Problem]:
    """A problem for each part of a recipe that transformers has no counterpart of."""
    spec = recipe.model
    yield from _refused_stream(spec.components["residual"])
    yield from _refused_ends(spec.components["embedding"], spec.components["parametrization"])
    plain: dict[str, Any] = {"embedding_norm": False, "logit_softcap": None}
    for name, value in plain.items():
        actual = getattr(spec, name)
        if actual != value:
            yield spec.at.problem(name, f"{_say(actual)} {NONE}: only {_say(value)} has one")
    wanted = {"rope": "rmsnorm", "learned": "layernorm"}
    position = _name(spec.positional)
    if position not in wanted:
        yield spec.positional.problem("", f"{position!r} {NONE}: only rope and learned have one")
    elif _name(spec.norm) != wanted[position]:
        message = f"{_name(spec.norm)!r} {NONE} with {position!r}: {wanted[position]} has one"
        yield spec.norm.problem("", message)
    if position == "rope":
        yield from _refused_rope(spec.positional)
    if spec.weights.use != OWNED:
        yield spec.weights.problem("", f"weights {_name(spec.weights)!r} {NONE}: only owned ones")
    yield from _refused_nodes(spec.stack)
    blocks = list(_blocks(spec.stack))
    for block in blocks:
        yield from _refused_block(block, recipe, blocks[0])


def _refused_stream(residual: ComponentSpec) -> Iterator[Problem]:
    if _name(residual) != "sum":
        yield residual.problem("", f"{_name(residual)!r} {NONE}: only sum has one")
        return
    for name, value in {"placement": "pre", "scale": 1.0}.items():
        actual = residual.fields[name]
        if actual != value:
            yield residual.problem(name, f"{_say(actual)} {NONE}: only {_say(value)} has one")


def _refused_ends(embedding: ComponentSpec, parametrization: ComponentSpec) -> Iterator[Problem]:
    if _name(embedding) != "tokens":
        yield embedding.problem("", f"{_name(embedding)!r} {NONE}: only tokens has one")
    elif embedding.fields["scale"] != 1:
        yield embedding.problem("scale", f"a scale of embeddings {NONE}")
    if _name(parametrization) != "standard":
        message = f"{_name(parametrization)!r} multiplies logits, which {NONE}"
        yield parametrization.problem("", message)


NONE = "has no counterpart in transformers' llama, mistral, qwen3 or gpt2"


def _refused_rope(rope: ComponentSpec) -> Iterator[Problem]:
    if rope.fields["partial"] != 1:
        yield rope.problem("partial", f"a rotation of a part of each head {NONE}")
    if rope.fields["scaling"] == "yarn":
        message = f"this yarn {NONE}: theirs blends by the number of a pair, not by its frequency"
        yield rope.problem("scaling", message)


def _refused_nodes(nodes: tuple[NodeSpec, ...]) -> Iterator[Problem]:
    for node in nodes:
        if node.weights is not None and node.weights.use != OWNED:
            message = f"weights {_name(node.weights)!r} {NONE}: only owned ones"
            yield node.weights.problem("", message)
        if isinstance(node, RecurSpec):
            yield node.at.problem("recur", f"recursion {NONE}")
        if not isinstance(node, BlockSpec):
            yield from _refused_nodes(node.stack)


def _refused_block(block: BlockSpec, recipe: Recipe, first: BlockSpec) -> Iterator[Problem]:
    spec = recipe.model
    learned = _name(spec.positional) == "learned"
    for kind in ("attention", "ffn"):
        if getattr(block, kind) is None:
            yield block.at.problem(kind, f"a block without {kind} {NONE}")
    body = block.components.get("block") or spec.components["block"]
    if _name(body) != "sequential":
        yield body.problem("", f"{_name(body)!r} {NONE}: only sequential has one")
    for kind in ("norm", "positional"):
        own = getattr(block, kind)
        if own is not None and own != getattr(spec, kind):
            yield own.problem("", f"{_name(own)!r} for this block alone {NONE}")
    if block.attention is not None:
        yield from _refused_attention(block.attention, recipe, learned)
    if block.ffn is not None:
        known = ("mlp",) if learned else tuple(GATES)
        name = _name(block.ffn)
        if name not in known:
            beside = f"with {_name(spec.positional)!r}: {', '.join(known)} {_have(known)} one"
            yield block.ffn.problem("", f"{name!r} {NONE} {beside}")
    for kind in ("attention", "ffn"):
        own, other = getattr(block, kind), getattr(first, kind)
        if own is not None and other is not None and own != other:
            message = f"blocks that differ {NONE}: this one's {kind} is not the first one's"
            yield own.problem("", message)


def _refused_attention(
    attention: ComponentSpec, recipe: Recipe, learned: bool
) -> Iterator[Problem]:
    if attention.use != MHA:
        yield attention.problem("", f"{_name(attention)!r} {NONE}: only mha has one")
        return
    fields = attention.fields
    for name in ("sink", "temperature", "gate", "value_embedding"):
        if fields[name] not in (None, False):
            yield attention.problem(name, f"`{name}` {NONE}")
    if learned:
        same = {"n_kv_head": fields["n_head"], "n_qkv": recipe.model.n_embd}
        for name, value in same.items():
            if fields[name] not in (None, value):
                message = f"{fields[name]} {NONE} with 'learned': only {value} has one"
                yield attention.problem(name, message)
        for name in ("window", "qk_norm"):
            if fields[name] not in (None, False):
                yield attention.problem(name, f"`{name}` {NONE} with 'learned'")
    elif fields["qk_norm"] and fields["window"] is not None:
        yield attention.problem("window", f"a window together with `qk_norm` {NONE}")
    elif recipe.model.bias and (fields["qk_norm"] or fields["window"] is not None):
        extra = "qk_norm" if fields["qk_norm"] else "window"
        yield attention.problem(extra, f"`{extra}` together with `model.bias` {NONE}")


def _have(names: tuple[str, ...]) -> str:
    return "has" if len(names) == 1 else "have"


def _say(value: Any) -> str:
    """A field's value as a recipe writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
