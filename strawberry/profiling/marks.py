"""Attribute time, FLOPs and saved bytes to modules, forward and backward.

Modules are marked as they run. A mark records the sequence numbers that autograd gives to the
operations inside it. In the backward pass, the profiler's events and the engine's current node have
these numbers, so backward costs are attributed too. A nested mark's cost is subtracted from the
outer one.

Recomputed blocks run forward again in the backward pass, inside the engine's event for one of their
nodes. Marks in there are subtracted from that node's time.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import strawberry.model.counting  # noqa: F401 (formulas that torch's registry is without)
from strawberry.runs.device import Machine

REST: Final = "rest"
"""Work of no component: residual sums, dropout, positions, gradient accumulation, and the engine.
"""


class ComponentMarks:
    """The active component, and the sequence numbers of its operations."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.recomputed: defaultdict[str, float] = defaultdict(float)
        self.uses: Counter[str] = Counter()
        self._open: list[tuple[str, int]] = []
        self._again: list[str] = []  # the marks that are open in a forward pass that is recomputed
        self._spans: list[tuple[int, int, str]] = []
        self._since = 0.0

    def begin(self) -> None:
        """Start a step; earlier sequence numbers don't recur."""
        self._spans.clear()
        self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        """Start attributing work to `name`."""
        self._account()
        if _node() is not None:
            self._again.append(name)
            return
        self.uses[name] += 1
        self._open.append((name, _next_number()))

    def leave(self) -> None:
        """Stop attributing work to it."""
        self._account()
        if _node() is not None:
            self._again.pop()
            return
        name, first = self._open.pop()
        self._spans.append((first, _next_number(), name))

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Attribute work in this context to `name`."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function that marks its calls."""

        def marked(*args: Any, **kwargs: Any) -> Any:
            with self.at(name):
                return function(*args, **kwargs)

        return marked

    def follow(self, module: nn.Module | None, name: str) -> None:
        """Mark a module's calls; recomputation leaves the last call early, by an exception."""
        if module is not None:
            module.register_forward_pre_hook(lambda *_: self.enter(name))
            module.register_forward_hook(lambda *_: self.leave(), always_call=True)

    def recomputing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose calls in the backward pass are marked as `REST`."""

        def marked(*args: Any, **kwargs: Any) -> Any:
            if _node() is None:
                return function(*args, **kwargs)
            with self.at(REST):
                return function(*args, **kwargs)

        return marked

    def owner(self, number: int) -> str:
        """The component that created an autograd node; spans close from the innermost outwards."""
        owners = (name for first, end, name in self._spans if first <= number < end)
        return next(owners, REST)

    def now(self) -> str:
        """The active component; in the backward pass, by the engine's current node."""
        if self._again:
            return self._again[-1]
        node = _node()
        if node is not None:
            return self.owner(node._sequence_nr())  # noqa: SLF001
        return self._open[-1][0] if self._open else REST

    def _account(self) -> None:
        self.machine.synchronize()
        now = time.perf_counter()
        spent, self._since = now - self._since, now
        if self._again:
            self.recomputed[self._again[-1]] += spent
            self.recomputed[self.owner(_node()._sequence_nr())] -= spent  # noqa: SLF001
        elif self._open:
            self.seconds[self._open[-1][0]] += spent


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts FLOPs of matrix products by active component."""

    def __init__(self, marks: ComponentMarks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.marks = marks
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)  # noqa: SLF001 (the registry's key)
        if formula is not None:
            self.counted[self.marks.now()] += formula(*args, **(kwargs or {}), out_val=out)
        return out


class SavedBytes:
    """Bytes that autograd saves, by component; tensors that share storage count once."""

    def __init__(self, marks: ComponentMarks, model: nn.Module) -> None:
        self.marks = marks
        self.counted: Counter[str] = Counter()
        self._known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._held: list[Tensor] = []  # so that no address is used again

    def pack(self, tensor: Tensor) -> Tensor:
        """Called with each saved tensor."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._known:
            self._known.add(address)
            self._held.append(tensor.detach())
            self.counted[self.marks.now()] += tensor.untyped_storage().nbytes()
        return tensor


def _node() -> Any:
    """The engine's current node in a backward pass; None outside one."""
    return torch._C._current_autograd_node()  # noqa: SLF001 (there is no public name)


def _next_number() -> int:
    """The sequence number of the next autograd node."""
    number: int = torch._C._autograd._get_sequence_nr()  # noqa: SLF001
    return number
