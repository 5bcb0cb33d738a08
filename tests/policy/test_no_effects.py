"""Importing any module of Strawberry changes nothing that others in the process share."""

import subprocess
import sys

IMPORTS = '''
import importlib, logging, os, pkgutil, random, signal, sys, threading, warnings

import numpy
import torch
import torch.distributed.checkpoint  # with its own dependencies, which add filters of warnings
import torch.nn.modules.module as modules
import torch.optim.optimizer as optimizers
from torch.utils.flop_counter import flop_registry

ENTRIES = ("strawberry.__main__", "strawberry.ablate.preload")  # a process of its own starts here
FORMULAS = tuple(flop_registry)  # ours may add formulas of operators that have none


def classes(cls):
    return [cls, *(sub for each in cls.__subclasses__() for sub in classes(each))]


OF_TORCH = [torch.nn.Module, torch.Tensor, *classes(torch.optim.Optimizer)]


def state():
    """What a process shares, by what it is called."""
    hooks = {
        f"{place.__name__}.{name}": dict(value) if isinstance(value, dict) else value
        for place in (modules, optimizers)
        for name, value in vars(place).items()
        if name.startswith("_global")
    }
    loggers = {
        name: (logger.level, list(logger.handlers), logger.propagate, logger.disabled)
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and not name.startswith("torch.")
    }
    root = logging.root
    return {
        **{f"class {cls.__qualname__}": dict(vars(cls)) for cls in OF_TORCH},
        **hooks,
        "functions of torch": {n: v for n, v in vars(torch).items() if n in torch.__all__},
        "functions of torch.nn.functional": {
            n: v for n, v in vars(torch.nn.functional).items() if callable(v)
        },
        "formulas of FLOPs": [flop_registry[key] for key in FORMULAS],
        "settings of torch": (
            torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
        ),
        "torch's random numbers": torch.get_rng_state().tolist(),
        "numpy's random numbers": numpy.random.get_state()[1].tolist(),
        "main module": sys.modules["__main__"],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "root logger": (root.level, list(root.handlers), root.manager.disable),
        "loggers": {name: now for name, now in loggers.items() if not name.startswith(SELF)},
        "hooks of Python": (
            sys.excepthook, sys.unraisablehook, threading.excepthook, sys.stdout, sys.stderr,
            list(sys.meta_path), sys.getrecursionlimit(),
        ),
    }


SELF = "strawberry"
before = state()
import strawberry

names = ["strawberry"]
for path in strawberry.__path__:
    for folder, _, files in os.walk(path):
        package = os.path.relpath(os.path.join("strawberry", os.path.relpath(folder, path)))
        if "templates" not in package:
            names += [
                os.path.join(package, file)[:-3].replace(os.sep, ".").removesuffix(".__init__")
                for file in files if file.endswith(".py")
            ]
wrong = []
for name in sorted({*names} - {*ENTRIES}):
    importlib.import_module(name)
    after = state()
    for what, was in before.items():
        now = after[what]
        if what == "loggers":  # new ones, of libraries, do no harm
            now = {key: now[key] for key in was}
        if now != was:
            wrong.append(f"{name}: {what}")
    before = after
print(len(names))
sys.exit("\\n".join(wrong) or 0)
'''


def test_no_import_has_an_effect():
    """Torch's classes and hooks, signals, warnings, logging and the rest are as they were."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 250
