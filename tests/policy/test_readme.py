"""The README is true: its commands run, and print what it says."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.environments import TERMINAL, shell

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
UPDATE = "UPDATE_README" in os.environ


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


def run(command, folder=ROOT):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return shell(command, folder, {**os.environ, **TERMINAL, "PATH": path})


@pytest.mark.parametrize("block", blocks("console"), ids=lambda b: b.splitlines()[0][2:60])
def test_console_blocks(block):
    """Each `$ command` prints what stands under it; UPDATE_README=1 writes it there instead."""
    first, _, expected = block.partition("\n")
    actual = run(first.removeprefix("$ ")).stdout
    if UPDATE:
        path = ROOT / "README.md"
        path.write_text(path.read_text().replace(block, f"{first}\n{actual}"))
        return

    assert [line.rstrip() for line in actual.splitlines()] == expected.splitlines()


def test_install_commands_are_those_of_make():
    """The plain lines are what `make run` and `make test` do."""
    run_lines, test_lines = (block.splitlines() for block in blocks("sh")[1:3])
    said = {"run": run_lines, "test": test_lines}
    for target, lines in said.items():
        done = run(f"make -B -n {target}").stdout
        done = done.replace(" --quiet", "").replace(" --no-logo", "")
        for line in lines:
            assert shlex.split(line) in [shlex.split(each) for each in done.splitlines()], line


def test_ci_runs_the_test_command():
    """.ci/run and the workflow run the README's test command, with a build of torch chosen."""
    assert "make test TORCH='torch==2.13.0'" in (ROOT / ".ci/run").read_text()
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    assert "make test TORCH='torch==2.13.0'" in [step.get("run") for step in jobs["test"]["steps"]]
    assert "make test TORCH='torch==2.13.0'" in README


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_pages_name_are_there(page):
    """Links and paths in code font lead to something, from the root or within the package."""
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"`([\w/.]+(?:\.py|\.md|/))`", text)
    bases = [ROOT, ROOT / "strawberry", *(p for p in (ROOT / "strawberry").iterdir() if p.is_dir())]

    assert links
    assert [p for p in links + paths if not any((base / p).exists() for base in bases)] == []


def test_python_example(tmp_path):
    """The Python example runs as it stands."""
    (example,) = [block for block in blocks("python") if "load_recipe" in block]
    code = example.replace('"recipes/', f'"{ROOT}/recipes/')
    done = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}", tmp_path)

    assert done.returncode == 0, done.stdout
    assert (tmp_path / "runs/from-python/run.json").exists()


def test_plugin_example(tmp_path):
    """The one-file plugin builds by the command under it."""
    (example,) = [block for block in blocks("python") if "# lerp.py" in block]
    (tmp_path / "lerp.py").write_text(example)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (command,) = [block for block in blocks("sh") if "lerp.py" in block]
    done = run(command, tmp_path)

    assert done.returncode == 0, done.stdout
    assert "Half" in done.stdout


def test_train_commands_are_real(tmp_path):
    """The commands under 'Train' work in that order, with a shorter run."""
    (block,) = [block for block in blocks("sh") if "--resume" in block]
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    short = (
        "--set train.eval_iters=1 --set train.checkpoint_interval=1 --set train.lr_decay_iters=3"
        " --set train.batch_size=1"
    )
    for line in ["strawberry train recipes/air.yaml --run-dir runs/air", *block.splitlines()]:
        steps = 3 if "--resume" in line else 2
        more = f" {short} --set train.max_iters={steps}" if " train " in line else ""
        done = run(line + more, tmp_path)

        assert done.returncode == 0, f"{line}\n{done.stdout}"
    assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_links_lead_somewhere():
    """Every relative link and picture is a file of the repository."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_file_tree():
    """Every folder that the tree names is there, and every package of the library is named."""
    (tree,) = re.findall(r"```\n(strawberry/ .*?)```", README, flags=re.DOTALL)
    named = re.findall(r"^( *)(\w+)/ ", tree, flags=re.MULTILINE)
    for indent, name in named:
        assert (ROOT / ("strawberry" if indent else "") / name).is_dir(), name
    packages = {p.parent.name for p in (ROOT / "strawberry").glob("*/__init__.py")}

    assert packages == {name for indent, name in named if indent}
