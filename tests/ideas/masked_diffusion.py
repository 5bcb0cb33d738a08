"""Masked diffusion (Nie et al. 2025, LLaDA, arXiv 2502.09992, equations 3 and 6)."""

import torch

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite, Prediction, hashed
from strawberry.plugin import hookimpl


class MaskedDiffusion(Objective):
    """Predicts masked targets from both sides; the mask is the vocabulary's last id."""

    left_to_right = False

    def __init__(self, site: ObjectiveSite) -> None:
        super().__init__()
        self.mask = site.vocab_size - 1

    def forward(self, batch: Batch) -> Learned:
        t = torch.rand(len(batch.ids), 1).clamp(min=1e-3)
        masked = torch.rand(batch.ids.shape) < t
        hidden = batch.states(batch.targets.clamp(min=0).masked_fill(masked, self.mask)).hidden
        targets = batch.targets.where(masked, -1)
        loss = batch.cross_entropy(hidden, targets, weights=(1 / t).expand_as(targets))
        return Learned(loss.total, loss.cross_entropy)

    def predictions(self, batch: Batch):
        T = batch.ids.shape[1]
        noise = hashed(batch.rows[:, None], torch.arange(T + 1))
        count = (noise[:, T:] * T).long() + 1
        masked = noise[:, :T].argsort(1).argsort(1) < count
        hidden = batch.states(batch.targets.clamp(min=0).masked_fill(masked, self.mask)).hidden
        weights = (T / count).expand(-1, T)
        yield Prediction(hidden, batch.targets.where(masked, -1), weights)


@hookimpl
def strawberry_register(registry):
    registry.objective("denoising", MaskedDiffusion)


RECIPE = {"objective": "denoising", "attention": {"use": "mha", "causal": False}}
