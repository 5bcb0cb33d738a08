"""The table of kinds: each row is true of the components of its kind."""

from __future__ import annotations

import pytest

from strawberry.plugin import Plugins
from strawberry.plugin.kinds import CORE, ComponentKind, Kinds
from strawberry.plugin.registry import resolve
from strawberry.recipe.grammar import kind_at, misstep
from strawberry.recipe.tree import parse_path


@pytest.mark.parametrize("kind", CORE, ids=lambda kind: kind.name)
def test_components_keep_to_the_contract_of_their_kind(
    kind: ComponentKind, plugins: Plugins
) -> None:
    """Every component derives from the contract, and the row's components are some."""
    contract = resolve(kind.contract, kind.name)
    assert isinstance(contract, type)
    for entry in plugins.registry.entries(kind.name):
        assert issubclass(entry.load(), contract), entry.full_name
    for name in (kind.default, kind.usual):
        if name:
            plugins.registry.find(kind.name, name)
    if kind.plain not in (None, "none"):
        plugins.registry.find(kind.name, kind.plain)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model.stack.*.ffn", "ffn"),
        ("model.stack[0].stack[2].attention", "attention"),
        ("model.stack[1].router", "router"),
        ("model.norm", "norm"),
        ("optimizer[1]", "optimizer"),
        ("data.task", "task"),
        ("model.n_embd", None),
        ("model.stack.*.ffn.n_ffn", None),
        ("train.max_iters", None),
    ],
)
def test_paths_lead_to_kinds(path: str, kind: str | None) -> None:
    """A component's place tells its kind; a value's tells none; all of them are paths."""
    steps = parse_path(path, None)
    found = kind_at(steps, Kinds())
    assert (found and found.name) == kind
    assert misstep(steps, Kinds()) == ""


def test_paths_that_lead_nowhere() -> None:
    """The first word that a recipe does not have is told, with the one that was meant."""
    told = {
        "modle.n_embd": "a recipe has no 'modle'; did you mean 'model'?",
        "model.n_embdd": "the model has no 'n_embdd'; did you mean 'n_embd'?",
        "train.max_iter": "train has no 'max_iter'; did you mean 'max_iters'?",
        "model.stack.*.fnn": "a stack's entry has no 'fnn'; did you mean 'ffn'?",
    }
    for path, message in told.items():
        assert misstep(parse_path(path, None), Kinds()) == message
