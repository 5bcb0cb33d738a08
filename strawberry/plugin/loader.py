"""Find plugins and load each one, with a record of every failure."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import threading
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from strawberry.errors import PluginError
from strawberry.plugin import specs
from strawberry.plugin.hooks import Manager, check_hooks
from strawberry.plugin.kinds import ComponentKind, Kinds
from strawberry.plugin.registry import Command, Registrar, RegistryEntry, one_line
from strawberry.plugin.signature import file_of

DISTRIBUTION: Final = "strawberry-lab"
BUILTIN: Final = "strawberry.components.manifest"
SLOW_SECONDS: Final = 3.0
"""Seconds after which a plugin that is still importing is reported."""

Status = Literal["ok", "broken", "incompatible", "disabled"]
Notice = Callable[[str], None]


@dataclass(slots=True)
class PluginRecord:
    """The state of one plugin.

    Attributes:
        name: its name in recipes and options.
        distribution: its distribution; empty for a local file.
        version: that distribution's version; may be empty.
        module: the manifest module's name.
        file: path of the manifest, if known.
        status: `ok`, `broken`, `incompatible` (with this version of Strawberry) or `disabled`.
        error: the reason why it is not `ok`, on one line; else empty.
        traceback: the full traceback of an exception.
        seconds: time taken to import and register it.
        kinds: the kinds of components that it added.
        entries: the components that it registered.
        commands: the commands that it registered.
        hooks: the hooks that it implements.
        api: the range of plugin API versions that it declares, or an empty string.
        notes: advice for its author.
    """

    name: str
    distribution: str
    version: str
    module: str
    file: Path | None = None
    status: Status = "ok"
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0
    kinds: list[ComponentKind] = field(default_factory=list)
    entries: list[RegistryEntry] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    api: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def builtin(self) -> bool:
        """True for Strawberry's own plugin."""
        return self.module == BUILTIN

    @property
    def aliases(self) -> set[str]:
        """The names that disable it."""
        return {self.name, self.name.rpartition(":")[2], self.distribution} - {""}


@dataclass(slots=True)
class PluginCandidate:
    """A plugin before its import."""

    record: PluginRecord
    path: Path | None = None
    requires: Sequence[str] = ()
    flaw: str = ""
    module: types.ModuleType | None = None


class Incompatible(Exception):  # noqa: N818 (a verdict that the loader passes to itself)
    """The plugin needs another version."""


def discover(files: Sequence[Path] = ()) -> tuple[list[PluginCandidate], list[str]]:
    """All plugins of this environment and the local `files`, in a fixed order, with unique names.

    The built-in comes first, then distributions by name, then files as given. Also returns a line
    for each name that several plugins claim: the built-in keeps its own, others become
    `distribution:name`.

    Raises:
        PluginError: one of `files` is not a Python file.
    """
    candidates = sorted(_installed(), key=_order) + [_local(file) for file in files]
    wanted = Counter(candidate.record.name for candidate in candidates)
    lines = []
    for name in sorted(name for name, count in wanted.items() if count > 1):
        clashing = [c.record for c in candidates if c.record.name == name]
        for record in clashing:
            if not record.builtin:
                record.name = f"{record.distribution or 'local'}:{name}"
        names = " and ".join(record.name for record in clashing)
        lines.append(f"{len(clashing)} plugins have the name {name!r}; available: {names}")
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.record.name in seen:
            candidate.flaw = f"its name {candidate.record.name!r} is already taken"
        seen.add(candidate.record.name)
    return candidates, lines


def load(candidate: PluginCandidate, manager: Manager, kinds: Kinds, notice: Notice | None) -> None:
    """Import one plugin and add its kinds; failures go to its record."""
    record = candidate.record
    had_torch = "torch" in sys.modules
    with _recorded(candidate, manager, notice):
        _check_requirements(candidate)
        module = _import(candidate)
        record.file = Path(module.__file__) if module.__file__ else None
        record.api = _check_api(module)
        record.hooks = check_hooks(module)
        if module in manager.get_plugins():
            raise PluginError("its module is already loaded under another plugin name")
        manager.register(module, record.name)
        candidate.module = module
        brought = Kinds(kinds.brought)
        _call(manager, "strawberry_kinds", module, brought)
        record.kinds = [kind for kind in brought.brought if kind not in kinds.brought]
        for kind in record.kinds:
            kinds.add(kind)
    if candidate.path is None and not had_torch and "torch" in sys.modules:
        record.notes.append("its import loads torch, which slows down every command")


def register(
    candidate: PluginCandidate, manager: Manager, kinds: Kinds, notice: Notice | None
) -> None:
    """Add the components and commands of a loaded plugin, once all kinds are known."""
    record = candidate.record
    with _recorded(candidate, manager, notice):
        registrar = Registrar(record.name, local=candidate.path is not None, kinds=kinds)
        _call(manager, "strawberry_register", candidate.module, registrar)
        record.entries = sorted(registrar.entries, key=lambda e: (e.kind, e.name))
        record.commands = sorted(registrar.commands, key=lambda c: c.name)


@contextlib.contextmanager
def _recorded(
    candidate: PluginCandidate, manager: Manager, notice: Notice | None
) -> Iterator[None]:
    """Record a plugin's failure and time in its record."""
    record = candidate.record
    start = time.perf_counter()
    try:
        with _watched(record, notice), contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise
    except Incompatible as verdict:
        record.status, record.error = "incompatible", str(verdict)
    except BaseException as error:  # SystemExit too: a plugin can't end the program
        record.status, record.error = "broken", _explain(error)
        record.traceback = _trace(error)
    if record.status != "ok":
        record.entries, record.commands, record.hooks = [], [], []
        if candidate.module is not None:
            manager.unregister(candidate.module)
    record.seconds += time.perf_counter() - start


def place(error: BaseException) -> str:
    """` (file:line)` of the innermost frame outside the machinery, or an empty string."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_MACHINERY):
            return f" ({frame.filename}:{frame.lineno})"
    return ""


_MACHINERY = (str(Path(__file__).parent), str(Path(importlib.__file__).parent), "<")


def _trace(error: BaseException) -> str:
    """The traceback from the plugin's own code on."""
    start = error.__traceback__
    while start and start.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start))


def _order(candidate: PluginCandidate) -> tuple[bool, str, str]:
    record = candidate.record
    return (not record.builtin, record.distribution.lower(), record.name)


def _installed() -> Iterator[PluginCandidate]:
    try:
        yield from map(_candidate, importlib.metadata.entry_points(group=specs.GROUP))
    except Exception:
        # One distribution's unreadable entry_points.txt fails the call for all of them, so look
        # at each by itself. That is slower, since their names must be read from their metadata.
        yield from _installed_one_by_one()


def _installed_one_by_one() -> Iterator[PluginCandidate]:
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = str(distribution.metadata["Name"])
        normal = re.sub(r"[-_.]+", "-", name).lower()
        if normal in seen:
            continue
        seen.add(normal)
        try:
            entry_points = list(distribution.entry_points.select(group=specs.GROUP))
        except Exception as error:
            text = distribution.read_text("entry_points.txt") or ""
            if f"[{specs.GROUP}]" in text:
                flaw = f"can't read its entry_points.txt: {one_line(error)}"
                yield PluginCandidate(PluginRecord(name, name, distribution.version, ""), flaw=flaw)
            continue
        yield from map(_candidate, entry_points)


def _candidate(entry_point: importlib.metadata.EntryPoint) -> PluginCandidate:
    distribution = entry_point.dist
    name = str(distribution.metadata["Name"]) if distribution else ""
    version = str(distribution.metadata["Version"] or "") if distribution else ""
    record = PluginRecord(entry_point.name, name, version, entry_point.value)
    candidate = PluginCandidate(
        record, requires=(distribution.requires or ()) if distribution else ()
    )
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", entry_point.value):
        record.file = file_of(entry_point.value)
    else:
        candidate.flaw = f"its entry point must name a module, got {entry_point.value!r}"
    return candidate


def _local(file: Path) -> PluginCandidate:
    if not file.is_file() or file.suffix != ".py":
        what = "not a Python file" if file.exists() else "no such file"
        raise PluginError(f"--plugin {file}: {what}")
    path = file.resolve()
    module = "strawberry_local_" + re.sub(r"\W", "_", path.stem)
    return PluginCandidate(PluginRecord(path.stem, "", "", module, file=path), path=path)


def _check_requirements(candidate: PluginCandidate) -> None:
    """Reject a distribution for another version of Strawberry, before the import."""
    if candidate.flaw:
        raise PluginError(candidate.flaw)
    named = any("strawberry" in text.lower() for text in candidate.requires)
    if candidate.record.builtin or not named:
        return  # without the import of packaging, which takes longer than all the rest
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(DISTRIBUTION)
        for text in candidate.requires:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue  # what can't be read is unknown, not wrong
            if canonicalize_name(requirement.name) != DISTRIBUTION:
                continue
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                raise Incompatible(
                    f"needs {DISTRIBUTION}{requirement.specifier}, this is {version}"
                )


def _import(candidate: PluginCandidate) -> types.ModuleType:
    name = candidate.record.module
    if candidate.path is None:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, candidate.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_api(module: types.ModuleType) -> str:
    """The declared range of API versions; raises if this version is outside it."""
    declared = vars(module).get("strawberry_api")
    if declared is None:
        return ""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        supported = SpecifierSet(declared)
    except (InvalidSpecifier, TypeError, AttributeError) as error:
        raise PluginError(
            f"strawberry_api = {declared!r} is not a version range, such as '>=1,<2'"
        ) from error
    if not supported.contains(str(specs.API_VERSION)):
        raise Incompatible(f"supports plugin API {declared}, this is {specs.API_VERSION}")
    return str(declared)


def _call(manager: Manager, hook: str, module: object, argument: object) -> None:
    """Call a hook of one plugin alone, so that a failure has one owner."""
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin is module:
            implementation.function(*(argument for _ in implementation.argnames))


def _explain(error: BaseException) -> str:
    if isinstance(error, PluginError):
        return str(error) + place(error)
    return one_line(error) + ("" if isinstance(error, SyntaxError) else place(error))


@contextlib.contextmanager
def _watched(record: PluginRecord, notice: Notice | None) -> Iterator[None]:
    """Report a plugin whose import takes long."""
    if notice is None:
        yield
        return
    text = (
        f"waiting for plugin {record.name!r} to import "
        f"({record.file or record.module}); `--no-plugin {record.name}` disables it"
    )
    timer = threading.Timer(SLOW_SECONDS, notice, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
