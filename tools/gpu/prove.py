"""Show on a machine with a GPU, in minutes, whether this checkout works there, and how fast.

    python tools/gpu/prove.py [--out gpu-proof] [--minutes 8] [--nanogpt PATH] [--wheels FOLDER]

It needs this checkout, Python 3.11 and the machine's torch. Other missing packages are named, and
measurements that don't need them run; `--wheels` is a folder of .whl files that replace packages,
if nothing can be installed. Results are in `results.json` and `table.md` of the folder as soon as
they exist. The exit code is 1 if anything failed. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
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
    if sys.version_info < (3, 11):  # noqa: UP036 (a machine's own is taken)
        parser.error(f"this is Python {sys.version.split()[0]}, and 3.11 or later is needed")
    device = options.device
    if device == "auto":
        device, missing = "cuda", _missing()
        if missing:  # minutes of a CPU at full size would show nothing
            parser.error(f"no GPU: {missing}; `--device cpu --quick` is a run without one")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
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


def _missing() -> str:
    """Obstacles between torch and a CUDA device; empty without any."""
    try:
        import torch
    except ImportError as error:
        return f"torch can't be imported ({error})"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return ""
    reasons = [str(one.message).strip().splitlines()[0] for one in told]  # such as an old driver
    if torch.version.cuda is None:
        reasons.append(f"torch {torch.__version__} is built without CUDA")
    elif not Path("/dev/nvidiactl").exists():
        reasons.append("there is no /dev/nvidiactl: no driver, or none in this container")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        reasons.append(f"CUDA_VISIBLE_DEVICES is {visible!r}")
    return "; ".join(reasons) or f"torch {torch.__version__} finds none"


def _environment(out: Path, wheels: Path | None) -> dict[str, str]:
    """Module path of workers: wheels unpacked, and this checkout as if it were installed."""
    import tomllib

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
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without which no run repeats itself
    }


if __name__ == "__main__":
    sys.exit(main())
