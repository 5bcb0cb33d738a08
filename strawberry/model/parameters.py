"""The parameters of a model, with what its modules declare of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from strawberry.contracts import Component, MatrixLayout, ParameterInfo, Parametrization
from strawberry.model.weighing import weight_of


def infos_of(
    model: nn.Module,
    parametrization: Parametrization | None,
    wide: Sequence[tuple[int, ...]] | None,
) -> list[ParameterInfo]:
    """Every parameter once, with its name, its kind and its matrices.

    Args:
        model: the model.
        parametrization: of its rates; None steps all alike.
        wide: the shapes of the parameters of the same recipe at twice the width, in order; None if
            all that can grow is said to.
    """
    kinds, parts = dict(_declared_kinds(model)), dict(_declared_parts(model))
    infos = [
        ParameterInfo(name, p, kinds.get(name) or _kind_by_shape(p), parts.get(name))
        for name, p in model.named_parameters()
    ]
    turned = set(_transposed(model))
    shapes = [None] * len(infos) if wide is None else wide
    return [
        replace(
            info,
            weight=weight_of(info, shape, transposed=info.name in turned),
            parametrization=parametrization,
        )
        for info, shape in zip(infos, shapes, strict=True)
    ]


def _declared_kinds(model: nn.Module) -> Iterator[tuple[str, str]]:
    """(parameter name, kind) as modules declare them; the head is the model's own."""
    yield "head.weight", "embedding"
    for path, module in model.named_modules():
        kinds = module.parameter_kinds if isinstance(module, Component) else {}
        for name, kind in kinds.items():
            yield f"{path}.{name}", kind


def _declared_parts(model: nn.Module) -> Iterator[tuple[str, MatrixLayout]]:
    """(parameter name, matrices) as modules declare them; raises ValueError if they don't fit."""
    for path, module in model.named_modules():
        layouts = module.parameter_parts if isinstance(module, Component) else {}
        for name, parts in layouts.items():
            try:
                parameter = module.get_parameter(name)
            except AttributeError:  # such as a bias that the recipe has none of
                continue
            rows = parameter.shape[0] if parameter.ndim < 3 else parameter.shape[-2]
            if rows % parts.rows:
                raise ValueError(f"{path}.{name} has {rows} rows, but its parts have {parts.rows}")
            yield f"{path}.{name}", parts


def _transposed(model: nn.Module) -> Iterator[str]:
    """The parameters that modules declare to be used as `x @ W`."""
    for path, module in model.named_modules():
        names = module.parameter_transposed if isinstance(module, Component) else ()
        for name in names:
            yield f"{path}.{name}"


def _kind_by_shape(parameter: nn.Parameter) -> str:
    return {2: "matrix", 3: "bank"}.get(parameter.ndim, "vector")
