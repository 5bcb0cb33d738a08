"""The conformance kit in pytest; it is there wherever Strawberry is installed.

    @pytest.mark.component("attention/hyena", window=8)
    def test_conforms(component_check):
        component_check()

is one test for each check of that kind. `only=[...]` and `leave_out=[...]` on
`@pytest.mark.checks` choose among them, `@pytest.mark.recipe(path)` takes a recipe's model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from strawberry.check import Subject
    from strawberry.plugin import Plugins

# Nothing of ours is imported above: this module is loaded by every pytest of the environment.


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marks."""
    for line in (
        "component(name, **fields): the component `kind/name` that `component_check` checks",
        "recipe(path): the recipe whose model `component_check` checks",
        "checks(only=None, leave_out=()): which checks `component_check` runs",
    ):
        config.addinivalue_line("markers", line)


@pytest.fixture(scope="session")
def strawberry_plugins() -> Plugins:
    """The plugins of this environment, loaded once."""
    return _plugins()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each mark and check."""
    if "component_check" not in metafunc.fixturenames:
        return
    from strawberry.check import checks_for

    chosen = metafunc.definition.get_closest_marker("checks")
    only = chosen.kwargs.get("only") if chosen else None
    leave_out = chosen.kwargs.get("leave_out", ()) if chosen else ()
    cases, names = [], []
    for mark in metafunc.definition.iter_markers():
        if mark.name not in ("component", "recipe"):
            continue
        if len(mark.args) != 1:
            raise pytest.UsageError(f"@pytest.mark.{mark.name} takes the name, then fields")
        word = str(mark.args[0])
        kind = word.partition("/")[0] if mark.name == "component" else "model"
        for check in only or checks_for(kind, _plugins().registry.kinds):
            if check not in leave_out:
                cases.append((mark.name, word, json.dumps(mark.kwargs), check))
                names.append(f"{word}-{check}")
    if not cases:
        raise pytest.UsageError("component_check needs @pytest.mark.component('kind/name')")
    metafunc.parametrize("component_check", cases, ids=names, indirect=True)


@pytest.fixture
def component_check(request: pytest.FixtureRequest) -> Callable[[], None]:
    """A function that runs one check; it fails, or skips, with what the check says."""
    what, word, fields, name = request.param

    def check() -> None:
        from strawberry.check import run_one

        outcome = run_one(_subject(what, word, fields), name)
        if outcome.verdict == "skipped":
            pytest.skip(outcome.detail)
        if outcome.verdict == "failed":
            pytest.fail(f"{word}: {outcome.asks} {outcome.detail}", pytrace=False)

    return check


@functools.cache
def _plugins() -> Plugins:
    from strawberry.plugin import Plugins

    return Plugins.load()


@functools.lru_cache(maxsize=8)
def _subject(what: str, word: str, fields: str) -> Subject:
    from strawberry.check import of_component, of_recipe
    from strawberry.recipe import load_recipe

    if what == "recipe":
        return of_recipe(load_recipe(word, plugins=_plugins()))
    kind, _, name = word.partition("/")
    return of_component(kind, name, json.loads(fields), plugins=_plugins())
