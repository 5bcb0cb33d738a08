"""Training, run folders, generation, evaluation and plots."""

from strawberry.train.evaluate import evaluate
from strawberry.train.generate import Sampling, generate, sample_ids
from strawberry.train.load import LoadedRun, load_run
from strawberry.train.loop import Diverged, Interrupted, RunResult, train
from strawberry.train.plot import plot

__all__ = [
    "Diverged",
    "Interrupted",
    "LoadedRun",
    "RunResult",
    "Sampling",
    "evaluate",
    "generate",
    "load_run",
    "plot",
    "sample_ids",
    "train",
]
