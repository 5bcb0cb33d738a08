"""Common parts of the GPU checks: options, measurements, and the clock.

A part is a module of `parts` with `measurements(bench)`, which yields names and functions, the most
important first. A function's result is one row of the part's table.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

ROOT: Final = Path(__file__).resolve().parents[2]
RECIPES: Final = ROOT / "recipes"

Row: TypeAlias = dict[str, Any]
Measurement: TypeAlias = tuple[str, Callable[[], Row]]
Measurements: TypeAlias = Iterator[Measurement]

PARTS: Final[dict[str, tuple[str, float]]] = {
    "machine": ("What there is", 0.10),
    "components": ("Components against the CPU in float64", 0.16),
    "recipes": ("Recipes: 20 steps, eager and compiled", 0.28),
    "speed": ("Training speed and memory", 0.24),
    "decoding": ("Decoding, mixtures, AFT, Muon", 0.15),
    "stalls": ("What makes the host wait", 0.07),
}
"""The parts in order, their titles, and their shares of the time."""


DATA_SHEETS: Final = {
    "A100": 312, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "GH200": 989, "H200 NVL": 836,
    "H200": 989, "B200": 2250,
}  # fmt: skip
"""TFLOP/s in bfloat16, dense, of NVIDIA's data sheets; the first whose words a card's name has."""


class Skip(Exception):  # noqa: N818 (not a mistake: there is nothing to measure here)
    """A measurement that can't be taken here, and why."""


class Wrong(Exception):  # noqa: N818 (a finding)
    """A measurement that shows a fault; `row` is what was measured."""

    def __init__(self, message: str, row: Row) -> None:
        self.row = row
        super().__init__(message)


@dataclass(frozen=True)
class Bench:
    """The device and size of the measurements.

    Attributes:
        device: of torch, `cpu`, `cuda` or `pretend`.
        quick: small sizes and few repetitions, for a CPU.
        nanogpt: nanoGPT's folder or `model.py`; None where the user has none.
        folder: where something may be written meanwhile.
    """

    device: str
    quick: bool
    nanogpt: str | None
    folder: Path

    @property
    def real(self) -> bool:
        """True for an accelerator whose figures are meaningful."""
        return self.device not in ("cpu", "pretend")

    def wait(self) -> None:
        """Wait for the device."""
        import torch

        if self.real:
            torch.accelerator.synchronize()

    def seconds(self, run: Callable[[], object], repeats: int | None = None) -> float:
        """The median time of a call, after two that warm up."""
        times = []
        repeats = repeats or (2 if self.quick else 7)
        for turn in range(repeats + (1 if self.quick else 2)):
            self.wait()
            began = time.perf_counter()
            run()
            self.wait()
            if turn >= (1 if self.quick else 2):
                times.append(time.perf_counter() - began)
        return median(times)

    @functools.cached_property
    def peak(self) -> float:
        """FLOPs a second of a product of two large matrices in bfloat16."""
        import torch

        side = 512 if self.quick else 8192
        a, b = (torch.randn(side, side, device=self.device).bfloat16() for _ in range(2))
        return 2 * side**3 / self.seconds(lambda: a @ b)

    @functools.cached_property
    def promised(self) -> float | None:
        """FLOPs a second in bfloat16 by the card's data sheet, where that is known."""
        import torch

        if self.device != "cuda":  # those of other makers are not listed
            return None
        words = set(torch.cuda.get_device_name().replace("-", " ").split())
        named = (peak for name, peak in DATA_SHEETS.items() if set(name.split()) <= words)
        return next((1e12 * peak for peak in named), None)

    @functools.cached_property
    def text(self) -> Path:
        """A text to train on: the sources of Python's standard library, which are everywhere."""
        path = self.folder / "text.txt"
        if not path.exists():
            files = sorted(Path(os.__file__).parent.glob("*.py"))
            pieces = (file.read_text("utf-8", errors="ignore") for file in files)
            path.write_text("".join(pieces)[: 200_000 if self.quick else 5_000_000])
        return path


def digits(number: float) -> float:
    """Three significant digits: nobody reads more of a measurement."""
    return float(f"{number:.3g}")
