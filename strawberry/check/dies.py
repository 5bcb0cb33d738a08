"""A one-file plugin whose FFN ends its trial, used to check executors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, NoReturn

import torch
from annotated_types import Ge
from torch import Tensor, nn

from strawberry.contracts import FFN, Site, Use
from strawberry.errors import FieldError
from strawberry.plugin import Registrar, hookimpl


def raises(_: Tensor) -> NoReturn:
    """An unexpected error."""
    raise RuntimeError("on purpose")


def exits(_: Tensor) -> NoReturn:
    """End the process without a message."""
    os._exit(3)


class Dies(FFN):
    """Scales each feature, until it ends the trial.

    Args:
        way: how it ends the trial.
        passes: number of training passes that succeed before.
    """

    ways: ClassVar[Mapping[str, Callable[[Tensor], Tensor]]] = {"raises": raises, "exits": exits}

    def __init__(self, site: Site, *, way: str, passes: Annotated[int, Ge(0)] = 0) -> None:
        super().__init__()
        if way not in self.ways:
            raise FieldError("way", f"{way!r} is not one of {', '.join(self.ways)}")
        self.way = self.ways[way]
        self.left = passes
        self.weight = nn.Parameter(torch.zeros(site.n_embd))

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if self.training and x.device.type != "meta":
            if self.left == 0:
                x = self.way(x)
            else:
                self.left -= 1
        return x * self.weight


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register the component."""
    registry.ffn("dies", Dies)
