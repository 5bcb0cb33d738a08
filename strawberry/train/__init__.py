"""Training, run folders, generation, evaluation and plots.

The package is callable: `strawberry.train(recipe)` is `strawberry.train.train(recipe)`, since the
import system binds this module to the same name as the public function.
"""

import sys
import types
from typing import Any

from strawberry.train.begin import begin
from strawberry.train.decode import sample_batch, sample_ids
from strawberry.train.evaluate import evaluate, evaluate_depths
from strawberry.train.generate import generate, generate_batch
from strawberry.train.imported import ImportedFile, import_seed
from strawberry.train.load import LoadedRun, load_run
from strawberry.train.loop import Interrupted, RunResult, train
from strawberry.train.memory import OutOfMemory
from strawberry.train.plot import plot
from strawberry.train.recent import Diverged
from strawberry.train.sampling import Sampling

__all__ = [
    "Diverged",
    "ImportedFile",
    "Interrupted",
    "LoadedRun",
    "OutOfMemory",
    "RunResult",
    "Sampling",
    "begin",
    "evaluate",
    "evaluate_depths",
    "generate",
    "generate_batch",
    "import_seed",
    "load_run",
    "plot",
    "sample_batch",
    "sample_ids",
    "train",
]


class _CallableModule(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> RunResult:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
