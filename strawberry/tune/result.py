"""What a search gives: a table, a recipe that extends the one given, and a plan that judges it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strawberry.recipe import load_recipe, patch
from strawberry.recipe.growth import carried
from strawberry.recipe.yaml import parse
from strawberry.tune.search import Search
from strawberry.tune.space import OWN, Choice, changes

TUNED, WORTH = "tuned.yaml", "worth.yaml"
"""The files in a search's folder: the recipe, and the plan."""
SEEDS = 5
"""Seeds of the plan."""
BY_STEPS = ("eval_interval", "checkpoint_interval")
"""Numbers of steps that keep their share of the run."""


def columns(search: Search) -> list[str]:
    """The heads of the table."""
    rounds = [f"{each.round.share:.1%} of a run" for each in search.ended]
    return ["settings", "learning rate", "batch", "warm-up", *rounds]


def rows(search: Search) -> list[list[str]]:
    """A row for each setting that was tried: those that came furthest first, best of them first."""
    ended = search.ended
    best = {name: place for place, name in enumerate(search.ranked())}
    far = {name: sum(name in each.values for each in ended) for name in search.choices}
    last = {name: ended[far[name] - 1].values[name] for name in search.choices}
    order = sorted(
        search.choices,
        key=lambda n: (-far[n], best.get(n, len(best)), last[n] is None, last[n] or 0.0),
    )
    return [
        [*_settings(search, name), *(_value(each.values, name) for each in ended)]
        for name in order
    ]  # fmt: skip


def _settings(search: Search, name: str) -> list[str]:
    choice = search.choices[name]
    rate = search.recipe.train.learning_rate * choice.rate
    label = "as it is" if name == OWN else f"rates x {choice.rate:g}"
    return [label, f"{rate:.3g}", str(choice.batch), f"{choice.warmup:.1%}"]


def _value(values: Mapping[str, float | None], name: str) -> str:
    if name not in values:
        return ""
    value = values[name]
    return "failed" if value is None else f"{value:.4f}"


def settings(search: Search, choice: Choice) -> dict[str, Any]:
    """What the tuned recipe changes, by path: as long a run on this machine as the recipe's own.

    It is evaluated on as many rows as before, or on a few more. What was found on a narrower
    sibling is carried over by the parametrization.
    """
    recipe = search.recipe
    steps = search.steps(choice, 1.0)
    changed = changes(recipe, choice, steps)
    share = steps / recipe.train.max_iters
    for name in BY_STEPS:
        changed[f"train.{name}"] = round(getattr(recipe.train, name) * share)
    rows = recipe.train.eval_iters * recipe.train.batch_size
    changed["train.eval_iters"] = -(-rows // choice.batch)
    rate = changed.get("train.learning_rate", recipe.train.learning_rate)
    changed |= carried(recipe, patch(recipe, search.narrow), rate)
    plain = {path: getattr(recipe.train, path.removeprefix("train."), None) for path in changed}
    return {path: value for path, value in changed.items() if value != plain[path]}


def write(search: Search, out: Path) -> Path:
    """Write the recipe and the plan; returns the plan's path.

    Args:
        search: one that has ended.
        out: the recipe's path.
    """
    name = search.ranked()[0]
    changed = {} if name == OWN else settings(search, search.choices[name])
    given = {}
    for override in search.plan.overrides:
        path, _, text = override.partition("=")
        given[path] = parse(text, f"--set {override}").plain()
    target = os.path.relpath(search.plan.recipe.absolute(), out.parent.absolute())
    lines = [f"# {line}" for line in story(search)]
    lines += [
        f"extends: {json.dumps(target)}",
        f"name: {json.dumps(f'{search.recipe.name}-tuned')}",
    ]
    if sets := {**given, **changed}:
        lines += ["set:", *(f"  {path}: {json.dumps(value)}" for path, value in sets.items())]
    search.folder.write(out, "\n".join(lines) + "\n")
    load_recipe(out, plugins=search.plugins)  # what is handed over must be a recipe
    plan = search.out / WORTH
    target = os.path.relpath(search.plan.recipe.absolute(), plan.parent.absolute())
    lines = ["# What the tuned settings are worth, with seeds that the search did not use.",
             f"ablate: {json.dumps(target)}",
             f"set: {json.dumps({**given, 'seed': search.recipe.seed + 1})}",
             f"cells: {json.dumps({'tuned': changed})}",
             f"seeds: {SEEDS}", f"metric: {search.plan.metric}"]  # fmt: skip
    search.folder.write(plan, "\n".join(lines) + "\n")
    return plan


def story(search: Search) -> list[str]:
    """What was found, in sentences; for the recipe's comment and the terminal."""
    ended = search.ended
    name, values = search.ranked()[0], ended[-1].values
    count, metric = len(search.choices), search.plan.metric
    best, own = values[name], values[OWN]
    was = "failed" if own is None else f"{own:.4f}"
    by = f"of {count} settings tried in {search.spent / 60:.1f} minutes of trials, by one seed"
    if name == OWN:
        head = f"The recipe's own settings are the best {by}: {metric} {best:.4f}."
    else:
        choice = search.choices[name]
        head = (
            f"Rates x {choice.rate:g}, batches of {choice.batch}, a warm-up of "
            f"{choice.warmup:.1%} are the best {by}: {metric} {best:.4f}, as it is {was}."
        )
    command = [
        "strawberry",
        "tune",
        str(search.plan.recipe),
        "--minutes",
        f"{search.plan.minutes:g}",
    ]
    command += [word for override in search.plan.overrides for word in ("--set", override)]
    lines = [shlex.join(command), head]
    share = ended[-1].round.share
    if share < 0.995:
        lines.append(
            f"The longest trials had {share:.1%} of a run's steps; longer runs may differ."
        )
    if width := search.narrow.get("model.n_embd"):
        lines.append(f"Tuned at width {width}; carried over to {search.recipe.model.n_embd}.")
    return lines


def to_json(search: Search) -> dict[str, Any]:
    """Everything that was tried, as plain data."""
    ended = search.ended
    return {
        "seconds_per_step": search.seconds,
        "seconds_of_trials": search.spent,
        "settings": [
            {"name": name, **asdict(choice),
             "values": [each.values.get(name) for each in ended if name in each.values]}
            for name, choice in search.choices.items()
        ],
        "rounds": [asdict(each.round) for each in ended],
        "best": search.ranked()[0],
    }  # fmt: skip
