"""A head that is tied to the embedding until late in training (modded-nanogpt, record 53)."""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Curriculum, Embedding, Settings
from strawberry.plugin import hookimpl


class Untied(Embedding):
    """Two tables: while `tied`, the head reads the first, and the second is a copy of it."""

    parameter_kinds = {"weight": "embedding", "head": "embedding"}
    adjustable = ("tied",)

    def __init__(self, site):
        super().__init__()
        self.tied = False
        self.weight = site.table(site.vocab_size, site.n_embd)
        self.head = nn.Parameter(self.weight.detach().clone())

    @property
    def table(self):
        return self.weight if self.tied else self.head

    def forward(self, ids, use):
        x = F.embedding(ids, self.weight)
        return x + 0 * self.head[0] if self.tied else x  # ranks exchange every gradient

    @torch.no_grad()
    def after_step(self):
        if self.tied:
            self.head.copy_(self.weight)


class UntieLate(Curriculum):
    """Frees the head after a share of the steps.

    Args:
        share: of the steps, for which it is tied.
    """

    def __init__(self, site, *, share: float = 2 / 3):
        self.steps = round(share * site.max_iters)

    def at(self, step):
        tied = step < self.steps
        frozen = ("embedding.head",) if tied else ()
        return Settings(frozen=frozen, attributes={"embedding.tied": tied})


@hookimpl
def strawberry_register(registry):
    registry.embedding("untied", Untied)
    registry.curriculum("untie_late", UntieLate)


RECIPE = {"model": {"embedding": "untied"}, "curriculum": ["untie_late"]}
