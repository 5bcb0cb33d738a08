"""The way of a plugin's author from an empty folder, command by command, in seconds.

    python tools/bench/author_journey.py [--kind attention] [--torch 'torch==2.13.0'] [--shared]
        [--recipes 22] [--json]

A virtual environment is created in a temporary folder, torch and this checkout are installed, and
the commands that `strawberry new` prints are run, then a short training. With `--shared` that
environment has the packages of the one that runs this, and nothing is installed but the plugin.
CPU seconds are those of all processes of a command: a busy machine changes them less.

Then come the lines that an author writes for each kind: the scaffold's component and manifest
without blank lines, comments and docstrings. Last are the changed lines of this checkout when every
recipe takes the new component: `git diff --numstat` of a clone in which all of them, or the first
`--recipes`, were built with it.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from strawberry.plugin import Plugins, Registry
from strawberry.plugin.kinds import CORE
from strawberry.scaffold import kinds, new

ROOT = Path(__file__).resolve().parents[2]
PLACES = {kind.name: kind.path for kind in CORE if kind.path and kind.path != kind.held}
"""Recipe paths that name one component of a kind."""
SHORT = "--run-dir run --set train.max_iters=20 --set train.eval_iters=1"


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="attention", choices=PLACES)
    parser.add_argument("--torch", default="torch>=2.13")
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--recipes", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = journey(folder, options.kind, None if options.shared else options.torch)
        registry = Plugins.load().registry
        lines = {kind: written(folder / "lines", kind, registry) for kind in kinds()}
        built, changed = slope(folder, options.kind, options.recipes)
    if options.json:
        print(json.dumps({"seconds": steps, "lines": lines, "built": built, "changed": changed}))
        return
    for command, (seconds, cpu) in steps.items():
        print(f"{seconds:7.1f} s  {cpu:7.1f} s of CPU  {command}")
    whole, busy = (sum(column) for column in zip(*steps.values(), strict=True))
    print(f"{whole:7.1f} s  {busy:7.1f} s of CPU  in all\n")
    print("lines an author writes: " + ", ".join(f"{k} {n}" for k, n in lines.items()))
    print(f"recipes built with it: {built}; git diff --numstat: {changed or 'nothing'}")


def journey(folder: Path, kind: str, torch: str | None) -> dict[str, tuple[float, float]]:
    """Seconds, and CPU seconds, of each command; ends the program, with its output, if one fails.

    Without `torch` the packages are those of this environment.
    """
    env = {**os.environ, "PATH": f"{folder / 'venv/bin'}{os.pathsep}{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)
    begin = [f"pip install --quiet {shlex.quote(torch or '')}", f"pip install --quiet {ROOT}"]
    if torch is None:
        share(folder / "shared")
        begin = ["cp shared/*.pth venv/lib/python*/site-packages && cp -p shared/bin/* venv/bin"]
    commands = [
        f"{sys.executable} -m venv venv",
        *begin,
        f"strawberry new {kind} idea",
        "pip install --quiet -e 'strawberry-idea[test]'",
        "strawberry build strawberry-idea/recipes/idea.yaml",
        f"strawberry check {kind}/idea",
        "pytest --quiet strawberry-idea",
        f"strawberry train strawberry-idea/recipes/idea.yaml {SHORT}",
    ]
    seconds = {}
    for command in commands:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(  # noqa: S602 (the commands are those above)
            command, shell=True, cwd=folder, env=env, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{command}\n{done.stdout}")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        name = command.replace(str(ROOT), "CHECKOUT").replace(sys.executable, "python")
        seconds[name] = round(time.perf_counter() - start, 2), round(cpu, 2)
    return seconds


def share(folder: Path) -> None:
    """Files by which an environment has the packages and commands of the one that runs this."""
    (folder / "bin").mkdir(parents=True)
    places = [place for place in sys.path if place.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({place!r})" for place in places]
    (folder / "shared.pth").write_text("\n".join(lines) + "\n")
    for command in ("strawberry", "pytest"):
        script = folder / "bin" / command
        script.write_text(f'#!/bin/sh\nexec {folder.parent}/venv/bin/python -m {command} "$@"\n')
        script.chmod(0o755)


def written(folder: Path, kind: str, registry: Registry) -> int:
    """Lines of code in the component and the manifest that the scaffold has for a kind."""
    made = new(kind, f"idea_{kind}", folder, registry)
    package = made / f"strawberry_idea_{kind}"
    return sum(code_lines(package / name) for name in (f"idea_{kind}.py", "plugin.py"))


def code_lines(path: Path) -> int:
    """Lines that hold code: no docstring, no comment, not blank."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()
    return sum(line.strip() != "pass" for line in ast.unparse(tree).splitlines() if line.strip())


def slope(folder: Path, kind: str, most: int | None = None) -> tuple[int, str]:
    """Number of recipes that build with the component, and the changes in a clone."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    built = 0
    for recipe in sorted(clone.glob("recipes/*.yaml"))[:most]:
        words = ["build", str(recipe), "--json", "--set", f"{PLACES[kind]}=idea"]
        if kind == "attention":  # the scaffold's has no use for positions
            words += ["--set", "model.positional=none"]
        done = subprocess.run(
            [folder / "venv/bin/strawberry", *words], cwd=clone, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode == 0:
            built += 1
        else:
            print(f"{recipe.name}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
    diff = subprocess.run(
        ["git", "diff", "--numstat"], cwd=clone, check=True, capture_output=True, text=True
    )
    return built, diff.stdout.strip()


if __name__ == "__main__":
    main()
