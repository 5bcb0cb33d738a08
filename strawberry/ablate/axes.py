"""The axes of a plan: a recipe path, and its values."""

from __future__ import annotations

import re
from typing import Any

from strawberry.ablate.plan import Range, Values
from strawberry.errors import StrawberryError
from strawberry.plugin.kinds import Kinds
from strawberry.recipe.grammar import model_keys, train_keys
from strawberry.recipe.yaml import parse


def parse_axis(text: str, kinds: Kinds | None = None) -> tuple[str, Values]:
    """Parse `--vary PATH=VALUE,VALUE`, or `PATH=LOW..HIGH`; values are YAML.

    Raises StrawberryError, or RecipeError for invalid YAML.
    """
    path, equals, rest = text.partition("=")
    if not equals or not path or not rest.strip():
        raise StrawberryError(f"{text!r}: expected PATH=VALUE,VALUE or PATH=LOW..HIGH")
    if (ends := re.fullmatch(r"\s*([^\s,{\[]+?)\.\.([^\s,]+)\s*", rest)) is not None:
        low, high = (parse(end, text).plain() for end in ends.groups())
        if not is_range(low, high):
            message = f"a range is two numbers, the smaller one first, got {low}..{high}"
            raise StrawberryError(f"{path}: {message}")
        return full_path(path, kinds), Range(low, high)
    return full_path(path, kinds), tuple(parse(f"[{rest}]", text).plain())


def is_range(low: Any, high: Any) -> bool:
    """Return whether these are two numbers, the smaller one first."""
    numbers = all(isinstance(e, (int, float)) and not isinstance(e, bool) for e in (low, high))
    return numbers and low < high


def full_path(path: str, kinds: Kinds | None = None) -> str:
    """Expand a short name: `ffn` is `model.stack.*.ffn`, `n_embd` is `model.n_embd`."""
    kinds = kinds or Kinds()
    head, dot, rest = path.partition(".")
    for kind in kinds.at("block", "model"):
        if head == kind.key:
            return f"{kind.path}{dot}{rest}"
    if path in model_keys(kinds) - {"stack"}:
        return f"model.{path}"
    return f"train.{path}" if path in train_keys() else path
