"""What the tests of optimizers share: small parameters, and a drive over given gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from strawberry.contracts import OptimizerSource, ParameterInfo

CPU = torch.device("cpu")


def info(name: str, *shape: int) -> ParameterInfo:
    generator = torch.Generator().manual_seed(len(name))
    parameter = nn.Parameter(torch.randn(shape, generator=generator))
    kind = {0: "vector", 1: "vector", 2: "matrix"}.get(len(shape), "bank")
    return ParameterInfo(name, parameter, kind)


def gradients(infos: Sequence[ParameterInfo], steps: int) -> list[list[Tensor]]:
    """For each step, a gradient for each parameter."""
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(i.parameter.shape, generator=generator) for i in infos]
            for _ in range(steps)]  # fmt: skip


def drive(
    factory: OptimizerSource,
    infos: Sequence[ParameterInfo],
    rates: Sequence[float],
    grads: Sequence[Sequence[Tensor]],
) -> torch.optim.Optimizer:
    """Step once for each rate, with that step's gradients."""
    optimizer = factory.make(infos, lr=rates[0], device=CPU)
    for step, (rate, row) in enumerate(zip(rates, grads, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for each, grad in zip(infos, row, strict=True):
            each.parameter.grad = grad.clone()
        factory.before_step(optimizer, step)
        optimizer.step()
    return optimizer


def starts(infos: Sequence[ParameterInfo]) -> list[Tensor]:
    """The parameters as they are, in float64."""
    return [i.parameter.detach().double() for i in infos]


def close(infos: Sequence[ParameterInfo], expected: Sequence[Tensor]) -> None:
    """Assert that the parameters are what was expected, to float32."""
    for each, value in zip(infos, expected, strict=True):
        torch.testing.assert_close(each.parameter.double(), value, rtol=1e-5, atol=1e-6)
