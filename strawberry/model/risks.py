"""Warnings: models that build but are probably not what you want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from strawberry.contracts import Attention, components
from strawberry.model.mode import in_mode
from strawberry.recipe.walk import specs

if TYPE_CHECKING:
    from torch import nn

    from strawberry.model.language_model import LanguageModel
    from strawberry.recipe.spec import Recipe


DECLARATIONS: Final = {
    "causal": "not causal",
    "batch_independent": "depends on other sequences of the batch",
    "stateless": "depends on earlier batches",
}
"""Declarations of a component by an attribute that is False."""


def risks(recipe: Recipe, model: LanguageModel) -> list[str]:
    """A line for each probably unintended combination, and each non-causal component."""
    spec, warnings = recipe.model, []
    parts = (part for visit in model.visits() for part in components(visit.block))
    attentions = [part for part in parts if isinstance(part, Attention)]
    if not attentions:
        warnings.append("no block mixes tokens, so the model sees only the current token")
    if attentions and not model.positional.places and not _placed_blocks(model):
        warnings.append(
            "no positional component (positional: none): only the causal mask encodes order"
        )
    ignoring = sorted({type(a).__name__ for a in attentions if not _is_placed(model, a.honours)})
    if ignoring:
        do = "ignores" if len(ignoring) == 1 else "ignore"
        warnings.append(
            f"{', '.join(ignoring)} {do} the recipe's positional component {spec.positional.use}"
        )
    by_fan_in = spec.components["parametrization"].fields.get("init") == "fan_in"
    if spec.tie_embeddings and by_fan_in and not spec.embedding_norm:
        warnings.append(
            f"tied embeddings at fan-in scale (std {spec.n_embd**-0.5:.3f}) without "
            "embedding_norm: the residual stream starts small"
        )
    # One that names its parameters has a rate for these, such as a table's rows, on purpose.
    every = [o.component for o in recipe.optimizer if o.params is None]
    peaks = [(c.entry.name, c.fields.get("lr")) for c in every]
    warnings += [
        f"a peak learning rate of {lr or recipe.train.learning_rate:g} is high for adamw"
        for name, lr in peaks
        if name == "adamw" and (lr or recipe.train.learning_rate) > 1e-2
    ]
    return warnings + _by_micro_batch(recipe, model) + ahead(recipe, model)


def _by_micro_batch(recipe: Recipe, model: LanguageModel) -> list[str]:
    """A warning if something depends on each of a step's micro-batches.

    A component declares it by an attribute `by_micro_batch`: the responsible fields.
    """
    parts = recipe.train.gradient_accumulation_steps
    names = {name for component in components(model) for name in component.by_micro_batch}
    if parts == 1 or not names:
        return []
    return [
        f"{', '.join(sorted(names))}: computed for each of the {parts} micro-batches "
        "separately, so a step differs slightly from one of a single micro-batch"
    ]


def ahead(recipe: Recipe, model: LanguageModel) -> list[str]:
    """A warning for each component that isn't causal, always or only in training."""
    always = noncausal(recipe, model)
    taught = [name for name in _looking_ahead(recipe, model, training=True) if name not in always]
    return [
        f"{name}: not causal: training sees later tokens, so losses look too good; "
        f"`strawberry generate` refuses the model without --allow-noncausal {name}"
        for name in always
    ] + [
        f"{name}: training sees later tokens, so its training loss looks too good; "
        "evaluation and generation don't"
        for name in taught
    ]


def noncausal(recipe: Recipe, model: LanguageModel) -> list[str]:
    """The components whose outputs depend on later tokens in evaluation, by their recipe names.

    A component declares it by an attribute `causal`, of its class or its own, that is False.
    """
    return _looking_ahead(recipe, model, training=False)


def declarations(recipe: Recipe, model: LanguageModel) -> list[str]:
    """A line for each dependence that a component declares in the mode at hand."""
    names = {spec.entry.load(): spec.entry.name for spec in specs(recipe, "model")}
    told = (
        f"{names.get(type(module), type(module).__name__)}: {words}"
        for module in model.modules()
        for attribute, words in DECLARATIONS.items()
        if not getattr(module, attribute, True)
    )
    return list(dict.fromkeys(told))


def declares(model: nn.Module, capability: str) -> bool:
    """Return whether every part of the model declares this capability, in its current mode."""
    return all(getattr(component, capability) for component in components(model))


def is_causal(model: nn.Module) -> bool:
    """Return whether no output depends on a later token, in the model's current mode."""
    return declares(model, "causal")


def _looking_ahead(recipe: Recipe, model: LanguageModel, *, training: bool) -> list[str]:
    if not model.objective.left_to_right:  # what it predicts, it doesn't read
        return []
    with in_mode(model, training=training):
        types = {type(component) for component in components(model) if not component.causal}
    names = {spec.entry.load(): spec.entry.name for spec in specs(recipe, "model")}
    return sorted(names.get(each, each.__name__) for each in types)


def _placed_blocks(model: LanguageModel) -> bool:
    return any(v.block.positional is not None for v in model.visits())


def _is_placed(model: LanguageModel, honours: Any) -> bool:
    places = model.positional.places
    return not places or "embedding" in places or bool(places & honours)
