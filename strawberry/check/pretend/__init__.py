"""A pretend accelerator: a second device on a machine that has only a CPU.

    with accelerator() as stalls:
        model.to("pretend")
        ...
    for stall in stalls:
        print(stall)

Its tensors are in host memory and its operators are the CPU's kernels, so results are bit-identical
to the CPU's. Otherwise it behaves like a GPU: an operator with tensors of two devices raises, and
so does a generator of another device; numpy has no access. Every host synchronisation is recorded
with the line that caused it.

It is torch's PrivateUse1 device, in pure Python. Registration can't be undone in a process: torch
then counts it first among the accelerators. A process with a CUDA device therefore refuses it.

It can't show races (each operator finishes before its call returns), memory use, numbers that
differ by kernel, synchronisation inside CUDA's libraries, or a device generator given to a CPU
operator.
"""

from strawberry.check.pretend.device import NAME, accelerator
from strawberry.check.pretend.stalls import Stall, Stalls, is_outside

__all__ = ["NAME", "Stall", "Stalls", "accelerator", "is_outside"]
