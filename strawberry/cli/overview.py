"""The text of `strawberry --help`, known without importing any verb."""

from __future__ import annotations

from typing import Final, NamedTuple

from strawberry.cli.terminal import BOLD, CYAN, paint


class CommandEntry(NamedTuple):
    """A verb: the location of its command, and the first line of its help."""

    target: str
    help: str


GROUPS: Final[dict[str, dict[str, CommandEntry]]] = {
    "Models": {
        "build": CommandEntry(
            "strawberry.cli.build:command",
            "Show a recipe's model: tree, parameters, FLOPs, memory.",
        ),
        "train": CommandEntry(
            "strawberry.cli.train:command",
            "Train a recipe's model, or resume an interrupted run.",
        ),
        "generate": CommandEntry(
            "strawberry.cli.generate:command",
            "Continue prompts with a trained model.",
        ),
        "eval": CommandEntry(
            "strawberry.cli.eval:command",
            "Measure the validation loss of a run, or its scores on tasks.",
        ),
        "profile": CommandEntry(
            "strawberry.cli.profile:command",
            "Show where a training step's time and memory go, by component.",
        ),
        "runs": CommandEntry(
            "strawberry.cli.runs:command",
            "List runs with recipe, loss, age and size; compare or remove them.",
        ),
        "plot": CommandEntry(
            "strawberry.cli.plot:command", "Plot loss and learning-rate curves of runs."
        ),
    },
    "Comparisons": {
        "ablate": CommandEntry(
            "strawberry.cli.ablate:command",
            "Compare recipe variants: equal budgets, paired seeds, verdicts.",
        ),
        "ladder": CommandEntry(
            "strawberry.cli.ladder:command", "Say what runs of growing size tell of larger ones."
        ),
        "tune": CommandEntry(
            "strawberry.cli.tune:command",
            "Find a recipe's rate, batch size and warm-up within minutes.",
        ),
        "report": CommandEntry(
            "strawberry.cli.report:command",
            "Write the report of an ablation, a suite or a ladder again.",
        ),
    },
    "Text": {
        "data": CommandEntry("strawberry.cli.data:command", "Prepare token files."),
        "tokenizer": CommandEntry("strawberry.cli.tokenizer:command", "Train tokenizers."),
    },
    "Toolkit": {
        "new": CommandEntry(
            "strawberry.cli.new:command", "Create an installable plugin with one working component."
        ),
        "check": CommandEntry(
            "strawberry.cli.check:command",
            "Check that a component, or a recipe's model, keeps its contract.",
        ),
        "components": CommandEntry(
            "strawberry.cli.components:command", "List components, or show the fields of one."
        ),
        "plugins": CommandEntry(
            "strawberry.cli.plugins:command", "List plugins and their problems."
        ),
        "recipes": CommandEntry(
            "strawberry.cli.recipes:command", "List the recipes that are installed, or print one."
        ),
        "schema": CommandEntry(
            "strawberry.cli.schema:command", "Print the JSON Schema of recipes, for editors."
        ),
    },
}

VERBS: Final = {name: verb for group in GROUPS.values() for name, verb in group.items()}

OPTIONS: Final = {
    "--plugin FILE": "Load a one-file plugin; may be repeated.",
    "--no-plugin NAME": "Disable a plugin; `all` disables every installed one.",
    "--version": "Show the versions of Strawberry and its plugins.",
    "--install-completion": "Install completion for this shell.",
    "-h, --help": "Show this page, or the help of a command.",
}


def overview() -> str:
    """The help of `strawberry` itself, in at most 80 columns."""
    lines = [
        f"{paint('Usage:', BOLD)} strawberry [OPTIONS] COMMAND [ARGS]...",
        "",
        "An architecture lab for language models.",
    ]
    for group, verbs in GROUPS.items():
        rows = {name: verb.help for name, verb in verbs.items()}
        lines += _section(group, rows, 12)
    lines += ["", "Plugins can add commands; `strawberry plugins` lists them."]
    lines += _section("Options, accepted anywhere on the line", OPTIONS, 22)
    return "\n".join(lines)


def _section(title: str, rows: dict[str, str], width: int) -> list[str]:
    lines = ["", paint(title, BOLD)]
    lines += [f"  {paint(f'{name:<{width}}', CYAN)}{text}" for name, text in rows.items()]
    return lines
