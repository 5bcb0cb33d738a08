"""The pretend device for torch: its name, module, generators and pinned memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from strawberry.check.pretend import waits
from strawberry.check.pretend.kernels import forgetting_casts, register
from strawberry.check.pretend.stalls import Stalls
from strawberry.errors import StrawberryError

NAME: Final = "pretend"
UNNAMED: Final = "privateuseone"


class _Module:
    """`torch.pretend`, with the functions that torch expects; randomness is the CPU's."""

    @staticmethod
    def is_available() -> bool:
        return bool(waits.ACTIVE)

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device(_: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @staticmethod
    def synchronize(_: Any = None) -> None:
        waits.read("synchronize")

    @staticmethod
    def manual_seed_all(_: int) -> None:
        """Do nothing: torch seeds the CPU's generator, which the device shares."""

    @staticmethod
    def get_rng_state(_: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, _: Any = None) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Hooks(torch._C._acc.PrivateUse1Hooks):  # noqa: SLF001
    def is_available(self) -> bool:
        return _Module.is_available()

    def has_primary_context(self, device_index: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


_TorchGenerator: Any = torch.Generator


class _AnyGenerator(type(_TorchGenerator)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _TorchGenerator)


class _Generator(_TorchGenerator, metaclass=_AnyGenerator):  # type: ignore[misc]
    """A torch.Generator that may be of the device; it draws as one of the CPU."""

    _of_device = False

    def __new__(cls, device: Any = "cpu") -> _Generator:
        wanted = torch.device(device)
        generator: _Generator = super().__new__(cls, "cpu" if wanted.type == NAME else wanted)
        if wanted.type == NAME:
            generator._of_device = True
            waits.GENERATORS.add(generator._cdata)
        return generator

    @property
    def device(self) -> Any:
        return torch.device(NAME, 0) if self._of_device else super().device

    def __del__(self) -> None:
        waits.GENERATORS.discard(self._cdata)


@functools.cache
def _registered() -> Any:
    """Register the device, once in a process; the result keeps its operators alive."""
    if torch.cuda.is_available():
        raise StrawberryError(
            "the pretend device can't run in a process with a CUDA device; hide that "
            "device: CUDA_VISIBLE_DEVICES= "
        )
    if torch._C._get_privateuse1_backend_name() != UNNAMED:  # noqa: SLF001
        raise StrawberryError("another backend occupies torch's PrivateUse1 device in this process")
    _setup_privateuseone_for_python_backend(NAME, _Module(), _Hooks())
    return register(NAME)


@contextlib.contextmanager
def accelerator() -> Iterator[Stalls]:
    """Provide the device `pretend` in this context; yields the recorded stalls.

    The backward pass runs in the calling thread, as on a CPU; `torch.Generator("pretend")` works.
    Contexts may be nested: the inner one records.

    Raises:
        StrawberryError: this process has a CUDA device, or another PrivateUse1 device.
    """
    _registered()
    stalls = Stalls()
    waits.ACTIVE.append(stalls)
    try:
        with _outermost() if len(waits.ACTIVE) == 1 else contextlib.nullcontext():
            yield stalls
    finally:
        waits.ACTIVE.remove(stalls)


@contextlib.contextmanager
def _outermost() -> Iterator[None]:
    """Patches of torch while the device is active."""
    pinning = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    pinning.impl("is_pinned", waits.is_pinned, "CPU")  # type: ignore[no-untyped-call]
    pinning.impl("_pin_memory", waits.pin, "CPU")  # type: ignore[no-untyped-call]
    torch.Generator = _Generator  # type: ignore[misc]
    try:
        with torch.autograd.set_multithreading_enabled(False), forgetting_casts():
            yield
    finally:
        torch.Generator = _TorchGenerator  # type: ignore[misc]
        pinning._destroy()  # type: ignore[no-untyped-call]  # noqa: SLF001
        waits.PINNED.clear()
