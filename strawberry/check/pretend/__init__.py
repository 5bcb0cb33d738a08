"""A pretend accelerator: a device beside the CPU, on a machine that has none.

    with accelerator() as stalls:
        model.to("pretend")
        ...
    for stall in stalls:
        print(stall)

What is on it lies in the host's memory and is computed by the CPU's own kernels, so results are
those of the CPU bit for bit. All else is as on a GPU: an operator that is given tensors of two
devices raises, so does a generator of another device, numpy can't look in, and whatever would make
the host wait for the device is taken down with the line that asked for it.

It is torch's PrivateUse1, the place for devices from outside of torch, and pure Python. Registering
it can't be undone in a process: from then on torch counts it first among the accelerators. So a
process that has a CUDA device refuses it.

What it can't show: races (each operator is done when its call returns), memory, numbers that differ
by kernel, waits inside of CUDA's libraries, and a generator of the device that a CPU operator is
given.
"""

from strawberry.check.pretend.device import NAME, accelerator
from strawberry.check.pretend.stalls import Stall, Stalls, is_outside

__all__ = ["NAME", "Stall", "Stalls", "accelerator", "is_outside"]
