"""The model: the stack, the language model, and its cost report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.model.accounting import account
    from strawberry.model.language_model import LanguageModel

__all__ = ["LanguageModel", "account"]

__getattr__, __dir__ = lazily(__name__, __all__, ("language_model", "accounting"))
