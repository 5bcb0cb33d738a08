"""Training: the loop, its step, engines, optimizers, batches, evaluation."""

from strawberry.training.begin import begin, write_run
from strawberry.training.evaluate import evaluate, evaluate_depths
from strawberry.training.loop import Interrupted, RunResult, train
from strawberry.training.optimizers import Optimizers
from strawberry.training.recent import Diverged

__all__ = [
    "Diverged",
    "Interrupted",
    "Optimizers",
    "RunResult",
    "begin",
    "evaluate",
    "evaluate_depths",
    "train",
    "write_run",
]
