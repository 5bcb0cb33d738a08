"""The model: the stack, the language model, and its cost report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.model.accounting import account as account
    from strawberry.model.language_model import LanguageModel as LanguageModel

__all__, __getattr__, __dir__ = lazily(__name__, __file__)
