"""Operators of the pretend device: each is the CPU's kernel over the same memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from strawberry.check.pretend import waits
from strawberry.check.pretend.memory import on_device, on_host

KEY: Final = "PrivateUse1"
AUTOCAST: Final = "AutocastPrivateUse1"

_CPU: Final = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)  # noqa: SLF001

BY_DEVICE: Final = ("aten::convolution", "aten::convolution_backward", "aten::_grouped_mm")
"""Operators without a CPU kernel of their own, which select one by the device."""

LOWER: Final = frozenset([
    "_convolution", "addbmm", "addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "conv_tbc",
    "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input", "linalg_vecdot",
    "linear", "matmul", "mm", "prelu", "scaled_dot_product_attention",
])  # fmt: skip
"""Dtype rules of CPU autocast: the lower type; `WIDEST` of the inputs; float32 for others."""
WIDEST: Final = frozenset(["cat", "stack", "index_copy"])


def register(name: str) -> list[torch.library.Library]:
    """Register all CPU operators for the device; `name` is torch's name of it.

    They exist as long as the result.
    """
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    special: dict[str, Callable[..., Any]] = {
        "aten::_copy_from": _copy_from,
        "aten::_to_copy": _to_copy,
        "aten::_local_scalar_dense": _local_scalar_dense,
        "aten::resize_": _resize,
    }
    for full in [*_names("CPU"), *BY_DEVICE]:
        if full not in special:
            kernel = _metadata(_operator(full)) if _is_view(full) else _computed(full, name)
            library.impl(full.removeprefix("aten::"), kernel, KEY)  # type: ignore[no-untyped-call]
    for full, kernel in special.items():
        library.impl(full.removeprefix("aten::"), kernel, KEY)  # type: ignore[no-untyped-call]
    chosen = {"scaled_dot_product_attention": _attention, "dropout": _dropout}
    for short, function in chosen.items():
        for key in (KEY, f"Autograd{KEY}"):
            library.impl(short, function, key)  # type: ignore[no-untyped-call]
    for full in _names("AutocastCPU"):
        library.impl(full.removeprefix("aten::"), _cast(full, name), AUTOCAST)  # type: ignore[no-untyped-call]
    others = torch.library.Library("_", "IMPL")  # type: ignore[no-untyped-call]
    others.fallback(torch.library.fallthrough_kernel, AUTOCAST)  # type: ignore[no-untyped-call]
    return [library, others]


def _names(key: str) -> list[str]:
    """Torch's operators with a kernel for a dispatch key."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key  # noqa: SLF001
    names = torch._C._dispatch_get_all_op_names()  # noqa: SLF001
    return [name for name in names if name.startswith("aten::") and has(name, key)]


def _operator(full: str) -> Any:
    name, _, overload = full.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, name), overload or "default")


def _is_view(full: str) -> bool:
    infos = [result.alias_info for result in _operator(full)._schema.returns]  # noqa: SLF001
    return any(info is not None and not info.is_write for info in infos)


def _metadata(operator: Any) -> Callable[..., Any]:
    """A view: the CPU's kernel touches no memory, so it can take the tensor itself."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        return operator.redispatch(_CPU, *args, **kwargs)

    return kernel


def _computed(full: str, name: str) -> Callable[..., Any]:
    """The CPU's kernel on the same memory; its results are on the device."""
    operator = _operator(full)
    waiting = waits.rule(full)
    strict = waits.strict(operator)
    arguments = operator._schema.arguments  # noqa: SLF001
    writes = any(a.alias_info and a.alias_info.is_write for a in arguments)
    tensors = [i for i, a in enumerate(arguments) if str(a.type) == "Tensor" and not a.kwarg_only]

    def kernel(*args: Any, **kwargs: Any) -> Any:
        handed = _Handed(name)
        host_args, host_kwargs = handed.down(args), handed.down(kwargs)
        if handed.foreign and strict(handed.foreign):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{name}:0 and cpu! ({full})"
            )
        if waiting is not None:
            waiting(*args, **kwargs)
        # What is a number in Python comes as one, also where the schema has a tensor.
        numbers = any(i < len(args) and isinstance(args[i], (int, float)) for i in tensors)
        called = operator.overloadpacket if numbers else operator
        result = called(*host_args, **host_kwargs)
        if writes:
            handed.follow()
        return handed.up(result)

    return kernel


class _Handed:
    """The arguments of one call, converted for the CPU's kernel."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._device: dict[int, tuple[Tensor, Tensor]] = {}  # by the id of the host's one
        self.foreign: list[Tensor] = []

    def down(self, value: Any) -> Any:
        """The host's form of an argument."""
        if isinstance(value, Tensor):
            return self._lower(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.down(item) for item in value)
        if isinstance(value, dict):
            return {key: self.down(item) for key, item in value.items()}
        if isinstance(value, torch.device):
            return torch.device("cpu")
        return waits.host_generator(value) if isinstance(value, torch.Generator) else value

    def _lower(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != self._name:
            self.foreign.append(tensor)
            return tensor
        if tensor.numel():
            host = on_host(tensor)
        else:  # it may be there to be made larger, which borrowed memory can't be
            host = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        self._device[id(host)] = (host, tensor)
        return host

    def follow(self) -> None:
        """Resize device tensors whose host form was resized."""
        for host, device in self._device.values():
            if host.shape != device.shape:
                _adopt(device, host)

    def up(self, value: Any) -> Any:
        """The device's form of a result; a returned argument stays the same object."""
        if isinstance(value, Tensor):
            if id(value) in self._device:
                return self._device[id(value)][1]
            waits.note_copy(value)
            return on_device(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.up(item) for item in value)
        return value


def _adopt(device: Tensor, host: Tensor) -> None:
    """Make a device tensor share the memory of a host tensor."""
    torch.ops.aten.set_.source_Storage_storage_offset.redispatch(
        _CPU, device, on_device(host).untyped_storage(), 0, host.shape, host.stride()
    )


def _resize(
    tensor: Tensor, size: list[int], *, memory_format: torch.memory_format | None = None
) -> Tensor:
    """If it fits, the memory stays; else the data moves to new memory."""
    host = torch.empty(size, dtype=tensor.dtype, memory_format=memory_format)
    kept = min(tensor.numel(), host.numel())
    host.view(-1)[:kept] = on_host(tensor).reshape(-1)[:kept]
    _adopt(tensor, host)
    return tensor


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """All copies to, from and within the device."""
    waits.copied(source, target, non_blocking)
    lower = [on_host(t) if t.device.type != "cpu" else t for t in (source, target)]
    lower[1].copy_(lower[0])
    return target


def _to_copy(
    source: Tensor,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
    **_: Any,
) -> Tensor:
    """As in torch, apart from the pinned memory of a non-blocking copy."""
    layout = memory_format or torch.preserve_format
    target = torch.empty_like(source, dtype=dtype, device=device, memory_format=layout)
    return target.copy_(source, non_blocking)


def _local_scalar_dense(tensor: Tensor) -> Any:
    waits.read("aten::_local_scalar_dense")
    return on_host(tensor).item()


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    """The kernel that a CPU would choose; torch chooses it by the device, in C++."""

    def host(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or tensor.device.type == "cpu":
            return tensor
        return on_host(tensor.detach()).requires_grad_(tensor.requires_grad)

    given = [host(tensor) for tensor in (query, key, value, attn_mask)]
    choice: Any = torch._fused_sdp_choice  # noqa: SLF001
    if choice(*given, dropout_p, is_causal, **options) == SDPBackend.MATH.value:
        plain = torch.ops.aten._scaled_dot_product_attention_math  # noqa: SLF001
        whole: Tensor = plain(query, key, value, attn_mask, dropout_p, is_causal, **options)[0]
        return whole
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(
            attn_mask.logical_not(), float("-inf")
        )
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    scale = options.get("scale")
    output: Tensor = fused(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return output


def _dropout(tensor: Tensor, p: float, train: bool) -> Tensor:
    """As on a CPU; for other devices torch chooses a fused kernel, which rounds differently."""
    if not train or p == 0 or not tensor.numel():
        return tensor
    if p == 1:
        return tensor * torch.zeros_like(tensor)
    return tensor * torch.empty_like(tensor).bernoulli_(1 - p).div_(1 - p)


_CASTS: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}
"""Autocast copies of parameters, kept until autocast ends."""


def _cast(full: str, name: str) -> Callable[..., Any]:
    """An operator under autocast, as in CPU autocast."""
    operator = _operator(full)
    short = full.removeprefix("aten::")

    def one(value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, Tensor):
            eligible = value.device.type == name and value.is_floating_point()
            if not eligible or value.dtype in (dtype, torch.float64):
                return value
            if not (value.requires_grad and value.is_leaf and value.dtype == torch.float32):
                return value.to(dtype)
            kept = _CASTS.setdefault((id(value), dtype), (value, value))
            if kept[1] is value:
                _CASTS[id(value), dtype] = kept = (value, value.to(dtype))
            return kept[1]
        if isinstance(value, (list, tuple)):
            return type(value)(one(item, dtype) for item in value)
        return value

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):  # noqa: SLF001
            lower = torch.get_autocast_dtype(name)
            dtype = lower if short in LOWER else torch.float32
            if short in WIDEST:
                wide = [t for t in _tensors(args) if t.dtype == torch.float32]
                dtype = torch.float32 if wide else lower
            args = one(args, dtype)
            return operator(*args, **{key: one(value, dtype) for key, value in kwargs.items()})

    return kernel


_AUTOCAST = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST))  # noqa: SLF001


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


@contextlib.contextmanager
def forgetting_casts() -> Iterator[None]:
    """In this context, autocast copies of parameters are released when torch releases its own."""
    theirs = torch.clear_autocast_cache

    def clear() -> None:
        _CASTS.clear()
        theirs()

    torch.clear_autocast_cache = clear
    try:
        yield
    finally:
        torch.clear_autocast_cache = theirs
        _CASTS.clear()
