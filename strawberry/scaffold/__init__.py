"""A new plugin's distribution, rendered from templates; it installs, builds, passes its tests."""

from __future__ import annotations

import importlib.metadata
import keyword
import re
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from strawberry.errors import Location, StrawberryError
from strawberry.plugin import API_VERSION, Kinds, Registrar, Registry
from strawberry.plugin.loader import DISTRIBUTION
from strawberry.plugin.words import did_you_mean
from strawberry.recipe.around import around
from strawberry.recipe.yaml import dump

_TEMPLATES = files("strawberry.scaffold") / "templates"
_FILES: Final = {
    "pyproject.toml.j2": "pyproject.toml",
    "README.md.j2": "README.md",
    "gitignore.j2": ".gitignore",
    "workflow.yml.j2": ".github/workflows/test.yml",
    "init.py.j2": "{package}/__init__.py",
    "plugin.py.j2": "{package}/plugin.py",
    "components/{kind}.py.j2": "{package}/{name}.py",
    "test.py.j2": "tests/test_{name}.py",
}
"""Each template, and the file that it becomes."""


_RECIPE: Final[dict[str, Any]] = {
    "model": {
        "vocab_size": 8192,
        "block_size": 256,
        "n_embd": 64,
        "norm": "rmsnorm",
        "positional": "learned",  # any attention has a use for them
    },
    "schedule": "cosine",
    "train": {
        "max_iters": 300,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_iters": 30,
        "eval_interval": 100,
    },
}


def kinds() -> list[str]:
    """The kinds that have a template."""
    templates = {entry.name.partition(".")[0] for entry in (_TEMPLATES / "components").iterdir()}
    return [kind for kind in Kinds().names if kind in templates]


def new(kind: str, name: str, folder: Path, registry: Registry) -> Path:
    """Write the distribution `strawberry-NAME` into `folder`, whole or not at all.

    Args:
        kind: of its component.
        name: of its component; the package is `strawberry_NAME`.
        folder: where the distribution's own folder is made.
        registry: the components that there are, whose names are taken.

    Returns:
        The distribution's folder.

    Raises:
        StrawberryError: no template for the kind, a name that can't be used, or the folder exists
            or can't be written.
    """
    if kind not in kinds():
        near = did_you_mean(kind, kinds())
        raise StrawberryError(
            f"no template for kind {kind!r}{near or '; available: ' + ', '.join(kinds())}"
        )
    _check_name(kind, name, registry)
    values = _values(kind, name)
    target = folder / values["distribution"]
    if target.exists():
        raise StrawberryError(f"{target}: already exists; choose another name, or --dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Rendered beside its place and renamed, so that nothing half-written is ever there.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
            _render(Path(temporary, "plugin"), values)
            Path(temporary, "plugin").rename(target)
    except OSError as error:
        raise StrawberryError(f"{folder}: can't write: {error.strerror}") from error
    return target


def _check_name(kind: str, name: str, registry: Registry) -> None:
    if not re.fullmatch(r"[a-z](_?[a-z0-9])*", name) or keyword.iskeyword(name) or name == "plugin":
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).lstrip("_0123456789").rstrip("_")
        if not better or keyword.iskeyword(better) or better == "plugin":
            better = f"my_{kind}"
        raise StrawberryError(
            f"{name!r} can't be a module's name: use lower-case letters, digits and single _, such "
            f"as {better!r}"
        )
    Registrar(name).add(kind, name, "module:Class")  # refuses words that mean something in recipes
    for entry in registry.entries(kind):
        if entry.name == name:
            raise StrawberryError(
                f"{kind} {name!r} exists already, in plugin {entry.plugin!r}; choose another name"
            )
    distribution = _distribution(name)
    plugins = {entry.plugin for entry in registry.entries()}
    if name in plugins or _installed(distribution):
        raise StrawberryError(
            f"plugin {name!r} or its distribution {distribution} is already installed; "
            "choose another name"
        )


def _distribution(name: str) -> str:
    return f"strawberry-{name.replace('_', '-')}"


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _values(kind: str, name: str) -> dict[str, Any]:
    version = importlib.metadata.version(DISTRIBUTION)
    major, minor = version.split(".")[:2]
    cls = "".join(part.capitalize() for part in name.split("_"))
    body = (_TEMPLATES / "components" / f"{kind}.py.j2").read_text(encoding="utf-8")
    if re.search(rf"\b{cls}\b", body):  # a name that the module imports, such as Path
        cls += kind.capitalize()
    return {
        "kind": kind,
        "name": name,
        "cls": cls,
        "package": f"strawberry_{name}",
        "distribution": _distribution(name),
        "version": f"{major}.{minor}",
        "next_version": f"{major}.{int(minor) + 1}",
        "api": API_VERSION,
    }


def _render(folder: Path, values: dict[str, Any]) -> None:
    import jinja2

    # What is rendered is Python and YAML from words that were checked: nothing to escape.
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    for template, place in _FILES.items():
        source = _TEMPLATES / template.format(**values)
        text = environment.from_string(source.read_text(encoding="utf-8")).render(values)
        path = folder / place.format(**values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"\n+\Z", "\n", text), encoding="utf-8")
    (folder / values["package"] / "py.typed").touch()
    recipe = folder / "recipes" / f"{values['name']}.yaml"
    recipe.parent.mkdir()
    recipe.write_text(_recipe(values["kind"], values["name"]), encoding="utf-8")


def _recipe(kind: str, name: str) -> str:
    """A recipe of a small model with the component in its place."""
    row = Kinds()[kind]
    head = f"# A small model with {kind} {name}.\n"
    if not row.checked_at:
        command = f"strawberry ablate recipes/{name}.yaml --vary ffn=swiglu,geglu --{kind} {name}"
        head = f"# A small model; {command}\n"
    whole = {"name": name, "seed": 1337, "requires": [_distribution(name)], **_RECIPE}
    return head + dump(around(row, name, whole, Location(name, 1, 1)).plain())
