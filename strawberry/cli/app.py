"""The application: imports a verb when it is used, and turns errors into messages.

Verbs are those of `overview.VERBS`. Plugins are loaded only for another word, to look for it among
their commands.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from strawberry.cli import context
from strawberry.cli.numbers import bounded
from strawberry.cli.overview import OPTIONS, VERBS, overview
from strawberry.cli.terminal import fail, write
from strawberry.errors import PluginError, RecipeError, StrawberryError
from strawberry.stopping import heeded, stopped_by

# typer publishes BadParameter only; the base of all of its usage errors is what we catch.
_UsageError: Any = typer.BadParameter.__mro__[1]
_CompletionItem: Any = vars(typer.core)["CompletionItem"]

_HOISTED = ("--plugin", "--no-plugin")


class LazyGroup(typer.core.TyperGroup):
    """A command group that imports a verb of `overview.VERBS` or of a plugin on demand."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a verb, or None if there is no such verb."""
        if cmd_name not in VERBS:
            return _brought(cmd_name)
        module, _, attribute = VERBS[cmd_name].target.partition(":")
        return as_command(getattr(importlib.import_module(module), attribute), cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Read the global options, which decide which verbs exist, and run a verb."""
        files, disabled = (ctx.params[name] or () for name in ("plugin", "no_plugin"))
        context.configure(files=[Path(file) for file in files], disabled=disabled)
        return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve the verb; an unknown one is an error that suggests a similar name."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            known = [*VERBS, *context.plugins().commands()]
            if args[0] not in known:
                from strawberry.plugin.words import did_you_mean

                ctx.fail(f"unknown command {args[0]!r}{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete verbs, without importing them, and options."""
        items = [
            _CompletionItem(name, help=verb.help)
            for name, verb in VERBS.items()
            if name.startswith(incomplete)
        ]
        return [*items, *super(typer.core.TyperGroup, self).shell_complete(ctx, incomplete)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the overview."""
        formatter.write(overview())


def as_command(source: Any, name: str) -> Any:
    """The typer command of a verb's function, or the group of a verb's `typer.Typer` app."""
    if isinstance(source, typer.Typer):
        command: Any = typer.main.get_group(source)
    else:
        app = typer.Typer(add_completion=False)
        app.command(name)(source)
        command = typer.main.get_command(app)
    command.name = name
    bounded(command)
    _take_literally(command)
    return command


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; errors are printed to standard error."""
    with contextlib.suppress(AttributeError, ValueError, io.UnsupportedOperation):
        faulthandler.enable()  # a plugin that crashes the interpreter is then named by its file
    group = typer.main.get_group(_app)
    group.params.extend(typer.main.get_install_completion_arguments())
    try:
        with terminable() as signals:
            result = group.main(hoist(arguments), prog_name="strawberry", standalone_mode=False)
        result = 128 + signals[0] if signals else result
        sys.stdout.flush()
    except StrawberryError as error:
        if not error.told:
            fail(str(error), located=isinstance(error, RecipeError))
        return error.exit_code
    except _UsageError as error:
        fail(_usage(error))
        return 2
    except typer.Abort:
        fail("aborted")
        return 1
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


@contextlib.contextmanager
def terminable() -> Iterator[list[int]]:
    """Let SIGTERM and similar signals end a command as Ctrl-C does, with its cleanup.

    Yields the list of signals received.
    """
    signals: list[int] = []

    def stop(number: int) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    with stopped_by(stop, [number for number in heeded() if number != signal.SIGINT]):
        yield signals


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move the global plugin options in front of the verb."""
    front: list[str] = []
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--":
            return [*front, *rest, argument, *queue]
        if argument in _HOISTED:
            front += [argument, *queue[:1]]
            del queue[:1]
        elif argument.startswith(tuple(f"{option}=" for option in _HOISTED)):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def _root(
    ctx: typer.Context,
    plugin: Annotated[  # noqa: ARG001 (`LazyGroup.invoke` takes it)
        list[Path] | None, typer.Option(metavar="FILE", help=OPTIONS["--plugin FILE"])
    ] = None,
    no_plugin: Annotated[  # noqa: ARG001 (the same)
        list[str] | None, typer.Option(metavar="NAME", help=OPTIONS["--no-plugin NAME"])
    ] = None,
    version: Annotated[bool, typer.Option("--version", help=OPTIONS["--version"])] = False,
) -> None:
    """An architecture lab for language models."""
    if version:
        write(context.versions())
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        write(overview())


_app = typer.Typer(
    cls=LazyGroup,
    callback=_root,
    invoke_without_command=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _brought(name: str) -> Any:
    """The plugin command of that name, or None."""
    owners = context.plugins().commands().get(name, [])
    if len(owners) > 1:
        names = " and ".join(command.plugin for command in owners)
        raise PluginError(
            f"command {name!r} is provided by {names}; `--no-plugin NAME` disables one"
        )
    for command in owners:
        try:
            return as_command(command.load(), name)
        except (RuntimeError, TypeError, AttributeError) as error:  # what typer can't read
            raise PluginError(f"plugin {command.plugin!r}: command {name!r}: {error}") from error
    return None


def _take_literally(command: Any) -> None:
    """Keep rich from reading `[name]` in help texts as markup, and keep line breaks."""
    for item in (command, *command.params):
        if getattr(item, "help", None):
            item.help = re.sub(r"\[(?=[a-z#/@])", r"\\[", item.help)
            item.help = re.sub(r"(?<!\n)\n(?! *[\n-])", " ", item.help)
    for nested in getattr(command, "commands", {}).values():
        _take_literally(nested)


def _usage(error: Any) -> str:
    """Format a usage error as one line, with the help command to read."""
    text = error.format_message().rstrip(".")
    text = text[:1].lower() + text[1:]
    return f"{text}; see `{error.ctx.command_path} --help`" if error.ctx else text
