"""Names of components, and what is said when they mean nothing or too much."""

from __future__ import annotations

import sys

import pytest

from strawberry.components import manifest
from strawberry.errors import PluginError
from strawberry.plugin import Kinds, LookupFailure, Registrar, Registry, RegistryEntry
from strawberry.plugin.signature import fields_of, model_of, summary_without_import
from tests.plugin.fakes import FakeSite

GQA_A = RegistryEntry("attention", "gqa", "a", "a_parts:GQA")
GQA_B = RegistryEntry("attention", "gqa", "b", "b_parts:GQA")
MLP = RegistryEntry("ffn", "mlp", "a", "a_parts:MLP")


def test_registrar_has_a_method_for_each_kind() -> None:
    """Every kind can be registered by its own method and by `add`."""
    registrar = Registrar("p")

    for kind in Kinds().names:
        getattr(registrar, kind)("x", "m:X")
        registrar.add(kind, "y", "m:Y")

    every = [(kind, name) for kind in Kinds().names for name in "xy"]
    assert every == [(e.kind, e.name) for e in registrar.entries]


def test_entries_are_sorted_whatever_the_order_of_loading() -> None:
    """The registry does not depend on the order in which plugins load."""
    assert (
        Registry([GQA_A, GQA_B, MLP]).entries()
        == Registry([MLP, GQA_B, GQA_A]).entries()
        == [GQA_A, GQA_B, MLP]
    )
    assert Registry([MLP, GQA_A]).entries("ffn") == [MLP]


def test_find_by_short_and_full_name() -> None:
    """A unique component answers to both of its names."""
    registry = Registry([GQA_A, MLP])

    assert registry.find("attention", "gqa") == GQA_A
    assert registry.find("attention", "a/gqa") == GQA_A


def test_ambiguous_name_says_how_to_choose() -> None:
    """Two owners of a short name make it an error, whoever they are; full names settle it."""
    registry = Registry([GQA_A, GQA_B, MLP])

    with pytest.raises(LookupFailure) as caught:
        registry.find("attention", "gqa")
    assert str(caught.value) == "attention 'gqa' is ambiguous: write a/gqa or b/gqa"
    assert registry.find("attention", "b/gqa") == GQA_B
    assert registry.short_name(GQA_B) == "b/gqa"
    assert registry.short_name(MLP) == "mlp"


def test_builtin_is_not_shadowed() -> None:
    """A plugin that takes a built-in's name makes it ambiguous instead of replacing it."""
    builtin = RegistryEntry("attention", "gqa", "strawberry", "s:GQA")

    with pytest.raises(LookupFailure, match="write a/gqa or strawberry/gqa"):
        Registry([builtin, GQA_A]).find("attention", "gqa")


def test_renamed_plugin_answers_to_its_own_name() -> None:
    """`dist:rope/x` can be written `rope/x` while no other plugin is called so."""
    one, two = (RegistryEntry("ffn", "x", f"{d}:rope", "m:X") for d in ("d", "e"))

    assert one == Registry([one]).find("ffn", "rope/x")
    with pytest.raises(LookupFailure, match="write d:rope/x or e:rope/x"):
        Registry([one, two]).find("ffn", "rope/x")


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("attention", "gqaa", "unknown attention 'gqaa'; did you mean 'gqa'?"),
        ("attention", "GQA", "unknown attention 'GQA'; did you mean 'gqa'?"),
        ("attention", "a/gqq", "unknown attention 'a/gqq'; did you mean 'a/gqa'?"),
        ("attention", "mlp", "unknown attention 'mlp'; 'mlp' is of kind ffn"),
        ("attention", "wholly-other", "unknown attention 'wholly-other'"),
        ("router", "topk", "unknown router 'topk'; no router is registered"),
        ("atention", "gqa", "unknown kind 'atention'; did you mean 'attention'?"),
    ],
)
def test_unknown_name(kind: str, name: str, expected: str) -> None:
    """A name that means nothing is told its nearest neighbour, or where it does mean something."""
    with pytest.raises(LookupFailure) as caught:
        Registry([GQA_A, MLP]).find(kind, name)

    assert expected == str(caught.value)


def test_unknown_name_beside_a_broken_plugin() -> None:
    """A failed lookup mentions plugins that did not load; naming one gives its failure."""
    registry = Registry([GQA_A], {"moe": "failed to load: no triton"})

    with pytest.raises(LookupFailure) as caught:
        registry.find("attention", "gqaa")
    assert str(caught.value) == (
        "unknown attention 'gqaa'; did you mean 'gqa'?"
        "; note: plugin 'moe' failed to load: no triton"
    )
    with pytest.raises(LookupFailure) as caught:
        registry.find("ffn", "moe/experts")
    assert str(caught.value) == "unknown ffn 'moe/experts': plugin 'moe' failed to load: no triton"


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("import no_such_package", "parts:Good", "ModuleNotFoundError"),
        ("raise SystemExit", "parts:Good", "SystemExit"),
        ("class Good: ...", "parts:Godo", "that module has no 'Godo'; did you mean 'Good'?"),
        ("Good = 3", "parts:Good", "is a int, not a class"),
        ("", "no_such_parts:Good", "No module named 'no_such_parts'"),
    ],
)
def test_failing_target(site: FakeSite, source: str, target: str, expected: str) -> None:
    """A target that can't be had names its plugin, its component and the cause."""
    site.module("parts", source)

    with pytest.raises(PluginError) as caught:
        RegistryEntry("ffn", "good", "p", target).load()

    assert str(caught.value).startswith(f"plugin 'p': ffn 'good' ({target}): ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("my hf", "m:f", "a name must be a letter, followed by"),
        ("hf", "m.f", "command 'hf': the target must be 'module:attribute', got 'm.f'"),
        ("hf", print, "the target must be 'module:attribute', got <built-in"),
        ("taken", "m:f", "command 'taken' is registered twice"),
    ],
)
def test_commands_that_can_not_be_registered(name: str, target: str, expected: str) -> None:
    """A command needs a name of its own and a target as text."""
    registrar = Registrar("p")
    registrar.command("taken", "m:f", "Do something.")

    with pytest.raises(PluginError) as caught:
        registrar.command(name, target, "Do something.")

    assert expected in str(caught.value)
    assert [command.name for command in registrar.commands] == ["taken"]


def test_load_gives_the_class(site: FakeSite) -> None:
    """A target is imported when it is loaded, and not before."""
    site.module("parts", "class Good: ...")
    entry = RegistryEntry("ffn", "good", "p", "parts:Good")
    assert "parts" not in sys.modules

    assert entry.load().__name__ == "Good"


BUILTIN = Registrar("strawberry")
manifest.strawberry_register(BUILTIN)


@pytest.mark.parametrize("entry", BUILTIN.entries, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_builtin_target_imports(entry: RegistryEntry) -> None:
    """Each line of the built-in manifest leads to a class with usable, documented fields."""
    cls = entry.load()

    model_of(cls)
    assert summary_without_import(entry.target)
    assert [field.name for field in fields_of(cls) if not field.doc] == []
