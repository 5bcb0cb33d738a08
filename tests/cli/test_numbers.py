"""Every option of every command that is a number is checked before anything is printed."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt

from strawberry.cli import context
from strawberry.cli.app import as_command, run
from strawberry.cli.numbers import bounds_of, is_number, refusal
from strawberry.cli.overview import VERBS


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command, built in or of a plugin, with the words that call it."""
    found = {}
    for name, verb in VERBS.items():
        module, _, attribute = verb.target.partition(":")
        found[name] = as_command(getattr(importlib.import_module(module), attribute), name)
    for name, owners in context.plugins(quiet=True).commands().items():
        found[name] = as_command(owners[0].load(), name)
    queue = [([name], command) for name, command in found.items()]
    while queue:
        words, command = queue.pop()
        yield words, command
        queue += [([*words, n], c) for n, c in getattr(command, "commands", {}).items()]


def numbers() -> Iterator[tuple[list[str], Any, Any]]:
    """Every number: the words before it, the parameter, its annotation."""
    for words, command in commands():
        if command.callback is None:
            continue
        hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
        for param in command.params:
            if is_number(hints.get(param.name)):
                yield words, param, hints.get(param.name)


NUMBERS = [pytest.param(*found, id=" ".join([*found[0], found[1].opts[0]])) for found in numbers()]


@pytest.mark.parametrize(("words", "param", "annotation"), NUMBERS)
def test_numbers_out_of_bounds_are_refused(
    words: list[str], param: Any, annotation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN, infinities and what is beyond each bound: a line with the option's name, exit code 2."""
    whole = "int" in str(annotation)
    bounds = bounds_of(annotation)
    assert any(isinstance(bound, (Ge, Gt)) for bound in bounds), "nothing is too small for it"
    assert not whole or any(isinstance(bound, Le) for bound in bounds), "nothing is too large"
    wrong: list[float] = [math.nan, math.inf, -math.inf]
    for bound in bounds:
        match bound:
            case Ge(limit):
                wrong.append(limit - 1)  # type: ignore[operator]
            case Gt(limit) | Lt(limit):
                wrong.append(limit)  # type: ignore[arg-type]
            case Le(limit):
                wrong.append(limit + max(1, limit // 2))  # type: ignore[operator, call-overload]
    for value in wrong:
        assert run([*words, f"{param.opts[0]}={value}"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"error: invalid value for '{param.opts[0]}'")
        assert said.err.count("\n") == 1
        assert "--help`" in said.err


def test_all_numbers_are_found() -> None:
    """Options that are known to be numbers are among those that the walk has found."""
    names = {case.id for case in NUMBERS}
    assert {"generate --temperature", "eval --steps", "data prepare --data-division",
            "ablate --alpha", "tokenizer train --vocab-size"} <= names  # fmt: skip


def test_bounds_in_words() -> None:
    """A refusal says all bounds, and what was given."""
    assert refusal(0.0, [Gt(0), Le(1)]) == "expected above 0 and at most 1, got 0.0"
    assert refusal(0, [Ge(1), Lt(9)]) == "expected at least 1 and below 9, got 0"
    assert refusal(0.5, [Gt(0), Le(1)]) is None
    assert refusal(math.nan, []) == "expected a finite number, got nan"
