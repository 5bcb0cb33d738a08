"""What a parametrization is told of each tensor: its shape, and which of its sides grow.

A side grows with the model's width if it is larger in the same recipe at twice the width. That
recipe is built on the meta device, and asks for the same matrices in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from strawberry.contracts import Initial, ParameterInfo, Parametrization, Weight


@dataclass(frozen=True, slots=True)
class Wide:
    """The same recipe at twice the width.

    Attributes:
        asked: the name, rows and columns of each matrix that its components asked for, in order.
        shapes: the shape of each parameter, in order; names may have sizes in them.
    """

    asked: list[tuple[str, int, int]]
    shapes: list[tuple[int, ...]]


class Weighing:
    """The starts of a model's matrices, as its components ask for them.

    Attributes:
        asked: as in `Wide`.
    """

    def __init__(self, parametrization: Parametrization, wide: Wide | None) -> None:
        self.parametrization = parametrization
        self.wide = wide
        self.asked: list[tuple[str, int, int]] = []

    def initial(self, name: str, kind: str, rows: int, columns: int, output: bool) -> Initial:
        """The start of a matrix; raises ValueError if the wide recipe asks for another one."""
        number = len(self.asked)
        self.asked.append((name, rows, columns))
        weight = Weight(name, kind, columns, rows, output=output)
        if self.wide is not None:
            every = self.wide.asked
            other, high, broad = every[number] if number < len(every) else ("nothing", 0, 0)
            if other != name:
                raise ValueError(
                    f"its matrix {name} is {other} at twice the width, so that no parametrization "
                    "can compare them"
                )
            weight = replace(weight, grows=(broad > columns, high > rows))
        return self.parametrization.initial(weight)


def weight_of(info: ParameterInfo, wide: tuple[int, ...] | None, *, transposed: bool) -> Weight:
    """What a parametrization is told of a parameter.

    Args:
        info: the parameter.
        wide: its shape at twice the width; None if all that can grow is said to.
        transposed: whether it is used as `x @ W`.
    """
    kind = "head" if info.name == "head.weight" else info.kind
    sizes = _sides(info.parameter, kind, transposed)
    grows = (info.parameter.ndim > 1 and kind != "embedding", kind != "head")
    if wide is not None:
        larger = [other > own for own, other in zip(info.parameter.shape, wide, strict=True)]
        grows = _grown(larger, kind, transposed)
    in_block = info.name.startswith(("stack.", "weights."))
    return Weight(info.name, kind, *sizes, grows=grows, in_block=in_block)


def _sides(tensor: Tensor, kind: str, transposed: bool) -> tuple[int, int]:
    """Fan-in and fan-out."""
    shape = tensor.shape
    if len(shape) < 2 or kind == "embedding":
        return 1, shape[-1] if shape else 1
    return (shape[-2], shape[-1]) if transposed else (shape[-1], shape[-2])


def _grown(larger: list[bool], kind: str, transposed: bool) -> tuple[bool, bool]:
    """Whether these sides grow, of whether each dimension does."""
    if len(larger) < 2 or kind == "embedding":
        return False, bool(larger) and larger[-1]
    return (larger[-2], larger[-1]) if transposed else (larger[-1], larger[-2])
