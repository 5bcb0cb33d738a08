"""Build the documentation site: `python tools/docs/build.py [--fast]`, into build/site.

Pages under tools/docs/pages are written by hand. All others are made of what is there: guides,
docstrings, the schema, the log; nothing is written twice. The build is strict: a link without a
target, or anything that would be loaded from elsewhere, ends it. `--fast` leaves out the notebook,
which trains a small model.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import api
import gallery
import guides
import links
import notebook
import pictures
import reference

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
OUT = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"


def main() -> int:
    """Build it; the exit code is 1 if something is wrong."""
    for folder in (OUT, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "pages", OUT)
    guides.write(OUT)
    gallery.write(OUT)
    reference.write(OUT)
    api.write(OUT)
    pictures.write(OUT / "pictures")
    notebook.write(OUT, run="--fast" not in sys.argv[1:])
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "-f",
        str(HERE / "mkdocs.yml"),
    ]
    done = subprocess.run(words, check=False, cwd=ROOT)
    if done.returncode:
        return 1
    problems = links.broken(SITE)
    print("\n".join([*problems, f"{SITE}: {sum(1 for _ in SITE.rglob('*.html'))} pages"]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
