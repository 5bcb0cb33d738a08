"""Curricula: that they are functions of the step, within the recipe's bounds, of few values."""

from __future__ import annotations

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.contracts import Curriculum
from strawberry.errors import RecipeError
from strawberry.model.build import build
from strawberry.runs.averages import run_site
from strawberry.runs.curricula import Curricula, put_settings


def _built(subject: Subject) -> Curriculum:
    (spec,) = subject.recipe.curriculum
    curriculum: Curriculum = spec.construct(run_site(subject.recipe), contract=Curriculum)
    return curriculum


def function(subject: Subject) -> str:
    """Does a step have the same settings whichever steps were asked for before it?"""
    steps = range(subject.recipe.train.max_iters)
    forwards, backwards = _built(subject), _built(subject)
    last_first = [backwards.at(step) for step in reversed(steps)]
    for step, other in zip(steps, reversed(last_first), strict=True):
        if forwards.at(step) != other:
            raise Finding(f"step {step} depends on the steps that were asked for before it")
    return f"{len(steps)} steps"


def bounds(subject: Subject) -> str:
    """Are its settings those that a recipe can have, and few?"""
    try:
        stages = list(Curricula(subject.recipe).stages())
    except RecipeError as error:
        raise Finding(error.problems[0].message) from error
    return f"{len(stages)} stages"


def puts(subject: Subject) -> str:
    """Can a model take each of its settings?"""
    try:
        curricula = Curricula(subject.recipe)
    except RecipeError as error:
        raise NotApplicable("its settings are out of bounds") from error
    model = build(subject.recipe, "meta")
    for step in range(subject.recipe.train.max_iters):
        curricula.frozen(model, step)
    for _, settings in curricula.stages():
        put_settings(model, settings)
    return "all of them"
