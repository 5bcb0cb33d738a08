"""The loss of a sweep's runs by whole batches, and from the tokens before alone: for `leak.yaml`.

python recipes/findings/leak.py FOLDER
"""

import sys
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from strawberry.ablate.record import Record
from strawberry.data import open_dataset
from strawberry.generation import load_run
from strawberry.model.language_model import LanguageModel

ROWS = 32
"""Sequences of the validation split."""
BATCH = 8
EVERY = 4
"""Every fourth position is predicted."""


@torch.no_grad()
def by_batches(model: LanguageModel, inputs: Tensor, targets: Tensor) -> float:
    """The loss at these positions, with whole sequences in batches, as in validation."""
    logits = torch.cat([model(rows) for rows in inputs.split(BATCH)])[:, EVERY - 1 :: EVERY]
    wanted = targets[:, EVERY - 1 :: EVERY]
    return float(cross_entropy(logits.flatten(0, 1), wanted.flatten()))


@torch.no_grad()
def by_prefixes(model: LanguageModel, inputs: Tensor, targets: Tensor) -> float:
    """The loss at the same positions, each from the tokens of its own sequence up to there."""
    losses = []
    for row, wanted in zip(inputs, targets, strict=True):
        for length in range(EVERY, len(row) + 1, EVERY):
            logits = model(row[None, :length])[:, -1]
            losses.append(float(cross_entropy(logits, wanted[length - 1 : length])))
    return fmean(losses)


def main(folder: Path) -> None:
    """Print a line of CSV for each run."""
    sys.stdout.write("cell,seed,whole,prefix\n")
    for trial in Record.read(folder).trials:
        run = load_run(trial.folder / "run", device="cpu")
        size = run.recipe.model.block_size
        inputs, targets = open_dataset(run.recipe).rows(
            "val", 0, ROWS, block_size=size, seed=run.recipe.seed
        )
        inputs, targets = torch.as_tensor(inputs).long(), torch.as_tensor(targets).long()
        whole, prefix = (by(run.model, inputs, targets) for by in (by_batches, by_prefixes))
        sys.stdout.write(f"{trial.cell},{trial.seed},{whole:.5f},{prefix:.5f}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
