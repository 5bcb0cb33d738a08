"""Who is at work in a training step, forward and backward, and what counts by that.

Modules are marked as they run. A mark notes the numbers that autograd gives to what is computed
inside it; on the way back the profiler's events, and the engine's current node, have those numbers,
so that what a component costs there is told too. What is marked within a mark is taken out of it.

Blocks that recompute run forward once more in the backward pass, inside the engine's event for one
of their nodes. What is marked there is taken out of that node's time.
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
"""What no component claims: residual sums, dropout, positions, gradients that are summed up, and
the engine itself."""


class ComponentMarks:
    """Which component is at work, and which numbers autograd gave to what it computed."""

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
        """Begin a step; the numbers of the one before are never met again."""
        self._spans.clear()
        self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        """From here on, what is computed is that component's."""
        self._account()
        if _node() is not None:
            self._again.append(name)
            return
        self.uses[name] += 1
        self._open.append((name, _next_number()))

    def leave(self) -> None:
        """Up to here."""
        self._account()
        if _node() is not None:
            self._again.pop()
            return
        name, first = self._open.pop()
        self._spans.append((first, _next_number(), name))

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Within it, what is computed is that component's."""
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
        """Mark a module's calls; recomputation leaves the last one early, by an exception."""
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
        """Whose a node of the way back is; spans close from the innermost outwards."""
        owners = (name for first, end, name in self._spans if first <= number < end)
        return next(owners, REST)

    def now(self) -> str:
        """Who is at work; on the way back, by the node that the engine is at."""
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
    """Counts FLOPs of matrix products by who is at work."""

    def __init__(self, marks: ComponentMarks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.marks = marks
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)  # noqa: SLF001 (the registry's key)
        if formula is not None:
            self.found[self.marks.now()] += formula(*args, **(kwargs or {}), out_val=out)
        return out


class SavedBytes:
    """Bytes that autograd keeps, by who computed them; tensors that share storage count once."""

    def __init__(self, marks: ComponentMarks, model: nn.Module) -> None:
        self.marks = marks
        self.found: Counter[str] = Counter()
        self._known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._held: list[Tensor] = []  # so that no address is used again

    def pack(self, tensor: Tensor) -> Tensor:
        """Called with each tensor that is kept."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._known:
            self._known.add(address)
            self._held.append(tensor.detach())
            self.found[self.marks.now()] += tensor.untyped_storage().nbytes()
        return tensor


def _node() -> Any:
    """The node that the engine is at in a backward pass; None outside of one."""
    return torch._C._current_autograd_node()  # noqa: SLF001 (there is no public name)


def _next_number() -> int:
    """The number that autograd gives to what is computed next."""
    number: int = torch._C._autograd._get_sequence_nr()  # noqa: SLF001
    return number
