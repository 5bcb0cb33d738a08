"""What `strawberry --help` shows: every verb with one line, known without importing any of them."""

from __future__ import annotations

from typing import Final, NamedTuple

from strawberry.cli.terminal import BOLD, CYAN, paint


class CommandEntry(NamedTuple):
    """A verb: where its command is, and the first line of its help."""

    target: str
    help: str


GROUPS: Final[dict[str, dict[str, CommandEntry]]] = {
    "Models": {
        "build": CommandEntry(
            "strawberry.cli.build:command",
            "Show a recipe's model: its tree, parameters, FLOPs and memory.",
        ),
        "train": CommandEntry(
            "strawberry.cli.train:command",
            "Train the model of a recipe, or go on with an interrupted run.",
        ),
        "generate": CommandEntry(
            "strawberry.cli.generate:command",
            "Continue a prompt with a trained model, or several side by side.",
        ),
        "eval": CommandEntry(
            "strawberry.cli.eval:command", "Measure the validation loss of a run."
        ),
        "profile": CommandEntry(
            "strawberry.cli.profile:command",
            "Show where a training step's time and memory go, by component.",
        ),
        "plot": CommandEntry(
            "strawberry.cli.plot:command", "Draw the loss and learning-rate curves of runs."
        ),
    },
    "Comparisons": {
        "ablate": CommandEntry(
            "strawberry.cli.ablate:command",
            "Compare variants of a recipe, fairly: budgets, seeds, verdicts.",
        ),
        "ladder": CommandEntry(
            "strawberry.cli.ladder:command", "Say what runs of growing size tell of larger ones."
        ),
        "report": CommandEntry(
            "strawberry.cli.report:command", "Make the report of an ablation or a suite anew."
        ),
    },
    "Text": {
        "data": CommandEntry("strawberry.cli.data:command", "Prepare token files."),
        "tokenizer": CommandEntry("strawberry.cli.tokenizer:command", "Train tokenizers."),
    },
    "Toolkit": {
        "new": CommandEntry(
            "strawberry.cli.new:command", "Make an installable plugin with one working component."
        ),
        "check": CommandEntry(
            "strawberry.cli.check:command",
            "Prove that a component, or a recipe's model, keeps its promises.",
        ),
        "components": CommandEntry(
            "strawberry.cli.components:command", "List the components, or show the fields of one."
        ),
        "plugins": CommandEntry(
            "strawberry.cli.plugins:command", "List the plugins, and what is wrong with them."
        ),
        "schema": CommandEntry(
            "strawberry.cli.schema:command", "Print the JSON Schema of recipes, for editors."
        ),
    },
}

VERBS: Final = {name: verb for group in GROUPS.values() for name, verb in group.items()}

OPTIONS: Final = {
    "--plugin FILE": "Load a local one-file plugin too; may be repeated.",
    "--no-plugin NAME": "Go on without a plugin; `all`: without any installed.",
    "--version": "Show the versions of Strawberry and of its plugins.",
    "--install-completion": "Let this shell complete commands.",
    "-h, --help": "Show this, or the help of a command.",
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
    lines += ["", "Plugins may bring more: `strawberry plugins` lists their commands."]
    lines += _section("Options, anywhere on the line", OPTIONS, 22)
    return "\n".join(lines)


def _section(title: str, rows: dict[str, str], width: int) -> list[str]:
    lines = ["", paint(title, BOLD)]
    lines += [f"  {paint(f'{name:<{width}}', CYAN)}{text}" for name, text in rows.items()]
    return lines
