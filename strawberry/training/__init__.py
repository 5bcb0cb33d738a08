"""Training: the loop, its step, engines, optimizers, batches, evaluation."""

from strawberry.training.begin import begin
from strawberry.training.evaluate import evaluate, evaluate_depths
from strawberry.training.imported import ImportedFile, import_seed
from strawberry.training.loop import Interrupted, RunResult, train
from strawberry.training.recent import Diverged

__all__ = [
    "Diverged",
    "ImportedFile",
    "Interrupted",
    "RunResult",
    "begin",
    "evaluate",
    "evaluate_depths",
    "import_seed",
    "train",
]
