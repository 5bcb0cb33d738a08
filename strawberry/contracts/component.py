"""The base class of a model's components: a module that declares its capabilities.

All of it is plain: an attribute has the default below unless a class, or an instance in its
constructor, sets it. Strawberry asks it of components alone, never of other modules. A part of a
component that has something to say, such as an inner router, is a `Component` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from strawberry.contracts.parts import MatrixLayout
from strawberry.contracts.use import State

Place: TypeAlias = Literal["embedding", "rotary", "bias", "context"]


class Component(nn.Module):
    """The base of every module that a recipe names, and of the parts of one.

    Attributes:
        causal: whether no output depends on a later token, in the mode (training or evaluation)
            that the module is in.
        batch_independent: whether no output depends on another sequence of the batch.
        stateless: whether no output depends on an earlier batch.
        separates: whether it keeps documents apart, by `use.documents`; true of what looks at
            each token by itself.
        cacheable: whether a cached call gives what one without a cache does; where it is false,
            generation computes the whole sequence for each token.
        rewinds: whether its decoding state serves for fewer tokens too: what lies past
            `use.offset` is not read, and the next call writes over it.
        routable: whether it can be given some of the tokens alone, with positions that leave
            others out, as a router of a recursion does.
        shares_keys: whether it can use the keys and values of an earlier step, by `use.shared`.
        honours: the places of a positional component that it reads.
        exact_gradient: whether its gradient is the slope of its output; false where it stops or
            estimates one on purpose.
        same_cost: whether every use costs the same, so that equal blocks are counted once; false of
            one that differs by block, or by what earlier blocks left in `use.memo`.
        waits: why the host has to wait for an accelerator; empty where it never does.
        by_micro_batch: the fields that ask for a loss which is no mean over tokens, and so is that
            of each micro-batch by itself.
        parameter_kinds: kinds of its own parameters, by attribute (`"table.weight": "embedding"`),
            where the number of dimensions doesn't tell: see `ParameterInfo.kind`.
        parameter_parts: the matrices among the rows of its own parameters, by attribute.
        parameter_transposed: its own matrices that are used as `x @ W`, so that their rows are the
            terms of an output.
        precise_buffers: its buffers that keep their precision when the model is cast, since they
            move by small steps.
        reads_inputs: the inputs of the embedding that it reads in `use.inputs`, and their last
            dimensions.
        adjustable: its numbers that a curriculum may change from step to step, by attribute.
    """

    causal: bool = True
    batch_independent: bool = True
    stateless: bool = True
    separates: bool = True
    cacheable: bool = True
    rewinds: bool = False
    routable: bool = True
    shares_keys: bool = False
    honours: frozenset[Place] = frozenset()
    exact_gradient: bool = True
    same_cost: bool = True
    waits: str = ""
    by_micro_batch: tuple[str, ...] = ()
    parameter_kinds: Mapping[str, str] = {}
    parameter_parts: Mapping[str, MatrixLayout] = {}
    parameter_transposed: tuple[str, ...] = ()
    precise_buffers: tuple[str, ...] = ()
    reads_inputs: Mapping[str, int] = {}
    adjustable: tuple[str, ...] = ()

    def __init__(self, site: object = None) -> None:
        super().__init__()

    def limit(self) -> int | None:
        """The longest sequence that it can take, in tokens, or None if there is no limit."""
        return None

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Named tensors, batch first, that it keeps between cached calls of up to `length` tokens.

        A component that overrides it finds its own states in `use.state`. A projection's states are
        in the same mapping as its component's, so their names begin with the projection's name.
        """
        return {}

    def after_step(self) -> None:
        """Called after each optimizer step, once however often the module is used in a pass.

        Update values that are learned without gradients. If ranks share a batch, the changes must
        be equal on all.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and cast as torch does, but for `precise_buffers`, which are only moved."""
        before = {name: getattr(self, name) for name in self.precise_buffers}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = getattr(self, name)
            if buffer is not None and moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        return self


def components(model: nn.Module) -> list[Component]:
    """The components of a model, or of a part of one, each once, outer ones first."""
    return [module for module in model.modules() if isinstance(module, Component)]


def keeps_state(component: Component) -> bool:
    """True if it has a decoding state."""
    return type(component).new_state is not Component.new_state
