"""Show on a machine with a GPU, in minutes, whether this checkout works there, and how fast.

    python tools/gpu/prove.py [--out gpu-proof] [--minutes 8] [--nanogpt PATH] [--wheels FOLDER]

It needs this checkout and the machine's torch. What else is missing is said, and what can do
without goes on; `--wheels` is a folder of .whl files that stand in for packages, where nothing can
be installed. Results are in `results.json` and `table.md` of the folder as soon as they are there.
The exit code is 1 if anything failed. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
sys.path[:0] = [str(HERE)]

from bench import PARTS  # noqa: E402 (found beside this file, from wherever it is called)
from driver import Job, drive  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-proof"), help="folder for results")
    parser.add_argument("--device", default="auto", help="auto, cuda, cpu or pretend")
    parser.add_argument("--quick", action="store_true", help="small and few, for a CPU")
    parser.add_argument("--minutes", type=float, help="for all of it: 8, or 3 where quick")
    parser.add_argument("--nanogpt", metavar="PATH", help="nanoGPT's folder or model.py")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="packages that are missing")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measurements with NAME in them")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    device = _device() if options.device == "auto" else options.device
    job = Job(
        out,
        device,
        options.quick,
        options.minutes or (3 if options.quick else 8),
        options.parts,
        None if options.nanogpt is None else str(Path(options.nanogpt).resolve()),
        _environment(out, options.wheels),
        options.only,
    )
    results = drive(job)
    print((out / "table.md").read_text())
    return 1 if {"failed", "cut"} & set(results.statuses()) else 0


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _environment(out: Path, wheels: Path | None) -> dict[str, str]:
    """Where workers find packages: wheels unpacked, and this checkout as if it were installed."""
    site = out / "site"
    for wheel in sorted(wheels.glob("*.whl")) if wheels is not None else ():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    named.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (named / "METADATA").write_text(metadata)
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (named / "entry_points.txt").write_text(points)
    paths = [str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "TORCHINDUCTOR_CACHE_DIR": str(out / "compiled"),
        "STRAWBERRY_CACHE": str(out / "cache"),
    }


if __name__ == "__main__":
    sys.exit(main())
