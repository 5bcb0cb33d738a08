"""The documentation site: its equations, its links, its tutorials and its notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environments import TERMINAL, shell

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "tools" / "docs"
TUTORIALS = sorted((DOCS / "pages" / "tutorials").glob("[!i]*.md"))
sys.path.insert(0, str(DOCS))


def test_equations_of_docstrings_are_drawn() -> None:
    """Equations of the components' reference become MathML; code and recipes stay as they are."""
    pytest.importorskip("latex2mathml")
    import equations

    text = (ROOT / "plugins" / "COMPONENTS.md").read_text()
    spans = [span for span in re.findall(r"`([^`\n]+)`", text) if equations.is_equation(span)]
    drawn = equations.drawn(text)

    assert len(set(spans)) > 40
    assert drawn.count("<math ") == len(spans)
    assert equations.latex("S_t = a_t S_{t-1} + k_t^T v_t") == (
        r"S_{t} = a_{t} S_{t-1} + k_{t}^{T} v_{t}"
    )
    assert equations.latex("x / sqrt(mean(x^2) + eps)") == (
        r"x / \sqrt{\mathrm{mean}(x^{2}) + \mathrm{eps}}"
    )
    for code in ("n_embd", "use.state", "train: {compile: blocks}", "--set a=b", "parts={'q': C}"):
        assert not equations.is_equation(code)


MATHEMATICAL = ("attention", "averaging", "block", "ffn", "loop", "norm", "optimizer", "positional",
                "residual", "router", "schedule")  # fmt: skip
WITHOUT = {"norm/none", "positional/none", "schedule/constant", "attention/retained_2360c08",
           "attention/retained_fb0a8c9"}  # fmt: skip
"""What computes nothing; and the original project's mixers, whose equations are a page long."""


def test_what_computes_has_its_equation() -> None:
    """Every component of a mathematical kind has an equation that the gallery draws."""
    pytest.importorskip("latex2mathml")
    import equations

    text = (ROOT / "plugins" / "COMPONENTS.md").read_text()
    parts = re.findall(r"### <a name=.*?></a>(\S+)\n(.*?)(?=\n##|\Z)", text, re.DOTALL)
    plain = {
        name for name, body in parts
        if not any(map(equations.is_equation, re.findall(r"`([^`\n]+)`", body)))
    }  # fmt: skip

    assert {name for name in plain if name.startswith(MATHEMATICAL)} == WITHOUT


def test_an_equation_stays_in_its_sentence() -> None:
    """Markdown ends no paragraph after an equation with which a line begins."""
    pytest.importorskip("latex2mathml")
    import equations
    from markdown import markdown

    html = markdown(equations.drawn("`w <- w - lr b`, with the momentum `b <- c b + g`."))
    assert html.count("<p>") == 1
    assert equations.latex("decay w + a w") == r"\mathrm{decay} \,w + a w"


def test_guides_become_pages(tmp_path: Path) -> None:
    """Links between guides lead from page to page; a link to code stays as text."""
    import guides

    homes = {"recipes/README.md": "guides/recipes.md", "README.md": "readme.md"}
    text = "[a](../README.md#x) [b](LOG.md) [c](https://d.org) ```\n[e](f)\n```\n`int \\| None`"
    fitted = guides.fitted(text, "recipes/README.md", "guides/recipes.md", homes, tmp_path)

    assert "[a](../readme.md#x) b (`recipes/LOG.md`) [c](https://d.org)" in fitted
    assert "<code>int &#124; None</code>" in fitted


def test_broken_links_are_found(tmp_path: Path) -> None:
    """A page, a place or a picture that isn't there, and a script from elsewhere, each is told."""
    import links

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text('<h1 id="top">x</h1><a href="../">home</a>')
    good = '<a href="a/#top">a</a><a href="https://x.org/">b</a>'
    bad = (
        '<a href="b/">',
        '<a href="a/#no">',
        '<img src="c.svg">',
        '<script src="//cdn.org/x.js">',
    )
    (tmp_path / "index.html").write_text(good)
    assert links.broken(tmp_path) == []
    for one in bad:
        (tmp_path / "index.html").write_text(good + one)
        assert len(links.broken(tmp_path)) == 1, one


@pytest.mark.slow
def test_the_site_is_built() -> None:
    """Strictly: without a warning, a broken link, or anything that is loaded from elsewhere."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, DOCS / "build.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    page = ROOT / "build" / "site" / "tutorials" / "notebook" / "index.html"
    assert "verdict" in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_are_true(page: Path, tmp_path: Path) -> None:
    """The files of a tutorial are written, and all of its commands work, in order."""
    text = page.read_text()
    for name, content in re.findall(r"```\w+\n# (\S+\.(?:py|yaml))\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(content)
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    assert commands
    for command in "".join(commands).splitlines():
        done = shell(command, tmp_path, {**os.environ, **TERMINAL, "PATH": path})
        assert done.returncode == 0, f"{command}\n{done.stdout}"
