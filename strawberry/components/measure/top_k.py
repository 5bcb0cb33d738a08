"""How often the right token is among the most likely ones, and how sure the model is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from strawberry.contracts import Measure, RunSite, wide


class TopK(Measure):
    """`val_top_K_accuracy`: targets among the k most likely tokens; `val_entropy`, in nats.

    Args:
        k: how many.
    """

    def __init__(self, site: RunSite, *, k: Annotated[int, Ge(1)] = 5) -> None:
        self.k = k

    def measure(
        self, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The sums over the targets of a batch."""
        scores, asked = wide(logits(ids)), targets >= 0
        near = scores.topk(min(self.k, scores.shape[-1]), dim=-1).indices
        right = (near == targets[..., None]).any(-1) & asked
        logs = scores.log_softmax(-1)
        entropy = -(logs.exp() * logs).sum(-1)
        count = asked.sum()
        return {
            f"top_{self.k}_accuracy": (right.sum(), count),
            "entropy": (entropy.where(asked, 0).sum(), count),
        }
