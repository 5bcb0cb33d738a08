"""Count one run of a part: FLOPs, and the bytes that autograd saves for the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    FlopCounterMode,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

_attention: Callable[..., int] = sdpa_flop_count
_attention_backward: Callable[..., int] = sdpa_backward_flop_count


@register_flop_formula(torch.ops.aten.addmm_)
def _addmm_flops(
    _total: torch.Size, left: torch.Size, right: torch.Size, *_: Any, **__: Any
) -> int:
    """The in-place product, which torch's counter misses: `total += left @ right`."""
    return 2 * left[0] * left[1] * right[1]


@register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)  # noqa: SLF001
def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    """The fused CPU attention, counted like that of other devices: in full."""
    return _attention(query, *_as_many(query, key, value))


@register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward)  # noqa: SLF001
def _attention_backward_flops(
    grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    """The same for the backward pass."""
    return _attention_backward(grad, query, *_as_many(query, key, value))


def _as_many(query: torch.Size, *others: torch.Size) -> list[torch.Size]:
    """Shapes of keys and values with as many heads as the queries: each has its own scores."""
    return [torch.Size((*shape[:1], query[1], *shape[2:])) for shape in others]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one use of a part.

    Attributes:
        flops_forward: FLOPs of a forward pass over one sequence of `block_size` tokens.
        flops_training: the same for forward and backward together.
        saved_bytes: bytes saved for the backward pass of that sequence.
        saved_once_bytes: saved bytes independent of the number of sequences, such as a derived
            matrix.
        written_bytes: bytes of its output to the next part, for that sequence.
        cache_fixed_bytes: bytes of decoding state for each sequence, independent of its length.
        cache_bytes_per_token: bytes of decoding state that each token adds, from `block_size` on; a
            state that is full by then, such as a window's, is fixed.
    """

    flops_forward: int = 0
    flops_training: int = 0
    saved_bytes: int = 0
    saved_once_bytes: int = 0
    written_bytes: int = 0
    cache_fixed_bytes: int = 0
    cache_bytes_per_token: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


class CostMeter:
    """Counts runs of a model's parts, on the meta device or with fake CPU tensors.

    Attributes:
        dtype: compute dtype; below float32, with autocast, as in training.
        casts: parameters of which autocast holds a copy through a pass, with its bytes. A parameter
            has one copy for all uses, which counts in no part.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], dtype: torch.dtype = torch.float32
    ) -> None:
        self.dtype = dtype
        self.casts: dict[nn.Parameter, int] = {}
        self.parameters = {id(parameter): parameter for parameter in parameters}

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Training's autocast; the meta device has none, and computes only in float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast("cpu", self.dtype)

    def count(
        self,
        run: Callable[[Tensor], Tensor],
        x: Tensor,
        given: Iterable[Tensor] = (),
        between: Callable[[], None] = lambda: None,
    ) -> Cost:
        """FLOPs and saved bytes of `run(x)`; tensors that share storage are counted once.

        Tensors in `given` count no more than parameters do. It runs twice, with `between` in
        between.
        """
        given = list(given)
        with torch.no_grad(), FlopCounterMode(display=False) as forward, self.autocast():
            run(x)
        between()
        x = x.detach().requires_grad_()
        with FlopCounterMode(display=False) as training:
            with self._saving(given) as saved:
                y = run(x)
            torch.autograd.backward(y, torch.ones_like(y))
        for tensor in (*self.parameters.values(), *given):
            tensor.grad = None
        return Cost(
            flops_forward=forward.get_total_flops(),
            flops_training=training.get_total_flops(),
            saved_bytes=saved.nbytes(),
        )

    def saved_bytes(
        self, run: Callable[[Tensor], Tensor], x: Tensor, given: Iterable[Tensor] = ()
    ) -> int:
        """Bytes that autograd saves for the backward pass of `run(x)`."""
        with self._saving(given) as saved:
            run(x.detach().requires_grad_())
        return saved.nbytes()

    @contextlib.contextmanager
    def _saving(self, given: Iterable[Tensor]) -> Iterator[_Saved]:
        """In this context autocast is on, and saved bytes are counted."""
        saved = _Saved([*self.parameters.values(), *given])
        hooks = torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor)
        with self.autocast(), _Casts(self.parameters) as casts, saved, hooks:
            yield saved
        for parameter, storage in casts.casts:
            if saved.kept.pop(storage._cdata, None) is not None:  # noqa: SLF001 (identity)
                self.casts[parameter] = storage.nbytes()


class _Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Detects parameters cast to another dtype, and their copies."""

    def __init__(self, parameters: dict[int, nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters = parameters
        self.casts: list[tuple[nn.Parameter, torch.UntypedStorage]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and id(args[0]) in self.parameters:  # noqa: SLF001 (the operator's name)
            self.casts.append((self.parameters[id(args[0])], out.untyped_storage()))
        return out


class _Saved(TorchFunctionMode):
    """Counts bytes that autograd saves, except `own`.

    On the meta device torch's attention is computed step by step and saves its scores. The fused
    kernels of a real run save their inputs, their output and a number for each query instead, so
    these are counted. The output has the layout of the queries: if the heads of a token are
    contiguous, later operations see them as one vector without another copy.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()
        self.own = {tensor.untyped_storage()._cdata for tensor in own}  # noqa: SLF001 (identity)
        self.kept: dict[int, torch.UntypedStorage] = {}
        self.extra = 0
        self.fused = False

    def pack(self, tensor: Tensor) -> Tensor:
        """The hook that autograd calls for each saved tensor."""
        storage = tensor.untyped_storage()
        if not self.fused and storage._cdata not in self.own:  # noqa: SLF001
            self.kept[storage._cdata] = storage  # noqa: SLF001 (held: no address comes back)
        return tensor

    def nbytes(self) -> int:
        """Bytes saved so far."""
        return self.extra + sum(storage.nbytes() for storage in self.kept.values())

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention or not args[0].is_meta:
            return func(*args, **(kwargs or {}))
        self.fused = True
        try:
            out = func(*args, **(kwargs or {}))
            if torch.empty_like(args[0]).transpose(1, 2).is_contiguous():
                out = out.transpose(1, 2).contiguous().transpose(1, 2)
        finally:
            self.fused = False
        for tensor in (*args[:3], out):
            self.pack(tensor)
        mask = (kwargs or {}).get("attn_mask")
        if mask is not None:  # kept as numbers, one for each truth value that is written out
            self.extra += 4 * mask.untyped_storage().nbytes() // mask.element_size()
        self.extra += 4 * out[..., 0].numel()
        return out
