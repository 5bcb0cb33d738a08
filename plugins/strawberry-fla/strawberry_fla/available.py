"""Check whether fla's layers can run here, and list what is missing."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import torch

DEVICES = ("cuda",)
"""The device types of the kernels."""

INSTALL = "pip install 'strawberry-fla[cuda]'"


def missing() -> list[str]:
    """Requirements of fla's layers that this machine lacks, in words."""
    lacking = [] if torch.cuda.is_available() else ["torch finds no CUDA device"]
    packages = {"triton": "triton", "fla": "flash-linear-attention"}
    absent = [name for module, name in packages.items() if find_spec(module) is None]
    if absent:
        lacking.append(f"to be installed: {', '.join(absent)} ({INSTALL})")
    return lacking


def layer_class(name: str, otherwise: str) -> type[Any]:
    """The layer of that name in `fla.layers`.

    Raises:
        ValueError: it can't run here; the message says what is missing, and what would do.
    """
    lacking = missing()
    if lacking:
        raise ValueError(f"fla's {name} can't run here: {'; '.join(lacking)}; {otherwise}")
    try:
        layer: type[Any] = getattr(importlib.import_module("fla.layers"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"fla's {name} can't be imported ({' '.join(str(error).split())}): {INSTALL}; "
            f"{otherwise}"
        ) from error
    return layer
