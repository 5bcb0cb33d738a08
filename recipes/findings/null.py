"""A network that differs from another one in nothing but its name: for `null.yaml`."""

from typing import Literal

import torch

from strawberry.components.ffn.mlp import MLP
from strawberry.contracts import Site
from strawberry.plugin import Registry, hookimpl


class Named(MLP):
    """`mlp` under a name, which decides only which random numbers its first weights get.

    Args:
        called: the name; `second` discards a random number before it draws its weights.
    """

    def __init__(self, site: Site, *, called: Literal["first", "second"] = "first") -> None:
        if called == "second":
            torch.rand(1)
        super().__init__(site, n_ffn=64)


@hookimpl
def strawberry_register(registry: Registry) -> None:
    """Register `named`."""
    registry.ffn("named", Named)
