"""Pack a model's matrices for decoding, whose time is mostly that of reading them.

    pack_weights(model, "int8")     # in eval mode, on its device; from here on it can't be trained

    float32     the same numbers; on a CPU stored by columns, so that one row of inputs sums columns
    bfloat16    matrix and inputs rounded to bfloat16, summed in float32: half the bytes
    int8        each matrix row in 8 bits with a scale (the largest number becomes 127), inputs in
                bfloat16: a quarter of the bytes

The matrices are detected, not declared: a few tokens pass through the model, and every parameter
that `F.linear` receives as weight is packed, whoever wrote the module. Stacks of expert matrices,
tables, routers and everything that is not multiplied this way stay as they are. If a packed
parameter has another use too, such as a tied embedding table, its plain form is kept as well. If
that use appears later, the plain form is computed from the packed one each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from strawberry.errors import StrawberryError
from strawberry.model.language_model import LanguageModel
from strawberry.model.risks import declares, is_causal

WeightFormat: TypeAlias = Literal["float32", "bfloat16", "int8"]

UNIT: Final = 16
"""Torch's int8 CPU kernel reads this many inputs at a time, past the end if needed."""

FEW_ROWS: Final = 16
"""Number of rows below which that kernel is faster."""

ABOUT: Final = frozenset(
    [
        *(getattr(Tensor, name).__get__ for name in ("device", "dtype", "is_meta", "ndim")),
        *(getattr(Tensor, name).__get__ for name in ("requires_grad", "shape")),
        *(Tensor.dim, Tensor.numel, Tensor.size),
    ]
)
"""Attributes that can be read without the matrix's values."""

P = TypeVar("P", bound="PackedMatrix")


def pack_weights(model: LanguageModel, weights: WeightFormat) -> None:
    """Pack the matrices of a model in place, and freeze it.

    Raises:
        StrawberryError: the format is unknown, or the model is in training mode.
    """
    if weights not in get_args(WeightFormat):
        known = ", ".join(get_args(WeightFormat))
        raise StrawberryError(f"unknown weights {weights!r}; write one of {known}")
    if model.training:
        raise StrawberryError("a model in training mode can't be packed; call `eval()` first")
    model.requires_grad_(False)
    watch = _Watch(p for p in model.parameters() if p.ndim == 2)
    with torch.no_grad():
        _look(model, watch)
        packed: dict[int, Tensor] = {}
        for module in model.modules():
            for name, old in module._parameters.items():  # noqa: SLF001 (all that share one change)
                if id(old) not in watch.multiplied:
                    continue
                assert old is not None
                if id(old) not in packed:
                    packed[id(old)] = _packed(old, weights, also_plain=id(old) in watch.otherwise)
                module._parameters[name] = packed[id(old)]  # type: ignore[assignment]  # noqa: SLF001


def _packed(plain: nn.Parameter, weights: WeightFormat, *, also_plain: bool) -> Tensor:
    if weights == "float32":
        if also_plain or plain.device.type != "cpu":
            return plain
        return nn.Parameter(plain.T.contiguous().T, requires_grad=False)
    form = BFloat16 if weights == "bfloat16" else Int8
    return form(plain, also_plain) if form.fits(plain) else plain


class PackedMatrix(Tensor):
    """A matrix (out, in) in fewer bytes; `F.linear` uses it packed, other operators unpacked."""

    plain: Tensor | None

    @staticmethod
    def fits(plain: Tensor) -> bool:
        """Return whether a matrix can be packed."""
        return plain.dtype == torch.float32

    @staticmethod
    def __new__(cls: type[P], plain: Tensor, also_plain: bool) -> P:
        """It has the shape, dtype and device of the plain matrix, without its values."""
        matrix: P = Tensor._make_wrapper_subclass(  # noqa: SLF001 (torch's way)
            cls, plain.shape, dtype=plain.dtype, device=plain.device
        )
        return matrix

    def __init__(self, plain: Tensor, also_plain: bool) -> None:
        super().__init__()
        self._is_param = True  # what makes it an instance of nn.Parameter
        self.plain = plain.detach() if also_plain else None

    def unpacked(self) -> Tensor:
        """The full, rounded matrix."""
        raise NotImplementedError

    def times(self, x: Tensor) -> Tensor:
        """Rows (N, in) in bfloat16 -> (N, out) in bfloat16."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Collection[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 (where torch documents it)
            if func is F.linear:
                return _linear(*args, **(kwargs or {}))
            if func in ABOUT:
                return func(*args, **(kwargs or {}))
            return _with_full(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own is a function
        cls,
        func: Callable[..., Any],
        types: Collection[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The form for other operators."""
        return _with_full(func, args, kwargs)


class BFloat16(PackedMatrix):
    """A matrix rounded to bfloat16."""

    def __init__(self, plain: Tensor, also_plain: bool) -> None:
        super().__init__(plain, also_plain)
        self.rounded = plain.detach().bfloat16()

    def unpacked(self) -> Tensor:
        """The full, rounded matrix."""
        return self.rounded.to(self.dtype)

    def times(self, x: Tensor) -> Tensor:
        """Rows (N, in) in bfloat16 -> (N, out) in bfloat16."""
        if len(x) == 1 and x.device.type == "cpu":
            return torch.mv(self.rounded, x[0])[None]
        return F.linear(x, self.rounded)


class Int8(PackedMatrix):
    """`round(row / scale)` in 8 bits, with a scale for each row."""

    def __init__(self, plain: Tensor, also_plain: bool) -> None:
        super().__init__(plain, also_plain)
        plain = plain.detach()
        largest = plain.abs().amax(1).clamp(min=torch.finfo(torch.float16).tiny)
        self.scale = (largest / 127).bfloat16()
        whole = (plain / self.scale[:, None]).round().clamp(-127, 127)
        self.whole = whole.to(torch.int8)

    @staticmethod
    def fits(plain: Tensor) -> bool:
        """Rows must be a multiple of the kernel's unit."""
        return PackedMatrix.fits(plain) and plain.shape[1] % UNIT == 0

    def unpacked(self) -> Tensor:
        """The full, rounded matrix."""
        return (self.whole * self.scale[:, None].to(self.dtype)).to(self.dtype)

    def times(self, x: Tensor) -> Tensor:
        """Rows (N, in) in bfloat16 -> (N, out) in bfloat16."""
        if len(x) < FEW_ROWS and x.device.type == "cpu":
            return torch._weight_int8pack_mm(x, self.whole, self.scale)  # noqa: SLF001 (its only name)
        return F.linear(x, self.whole.to(x.dtype)) * self.scale


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` if one of the three arguments is packed."""
    if not isinstance(weight, PackedMatrix) or isinstance(x, PackedMatrix):
        return F.linear(_full(x), _full(weight), _full(bias))
    rows = x.reshape(-1, x.shape[-1]).bfloat16().contiguous()
    y = weight.times(rows).to(x.dtype).view(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def _with_full(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> Any:
    full_args, full_kwargs = tree_map(_full, (tuple(args), dict(kwargs or {})))
    return func(*full_args, **full_kwargs)


def _full(value: Any) -> Any:
    """The plain form of a packed matrix; other values are unchanged."""
    if isinstance(value, PackedMatrix):
        return value.unpacked() if value.plain is None else value.plain
    return value


class _Watch(TorchFunctionMode):
    """Records the parameters that `F.linear` receives as weight, and those others read."""

    def __init__(self, matrices: Iterable[Tensor]) -> None:
        super().__init__()
        self.matrices = {id(matrix) for matrix in matrices}
        self.multiplied: set[int] = set()
        self.otherwise: set[int] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in ABOUT:
            for place, value in [*enumerate(args), *(kwargs or {}).items()]:
                parts = value if isinstance(value, (list, tuple)) else (value,)
                weight = func is F.linear and place in {1, "weight"}
                seen = self.multiplied if weight else self.otherwise
                seen |= self.matrices & {id(part) for part in parts}
        return func(*args, **(kwargs or {}))


def _look(model: LanguageModel, watch: _Watch) -> None:
    """Let a model read a few tokens, in every way that generation does."""
    limit = model.limit()
    length = 2 if limit is None else min(limit, 2)
    ids = torch.zeros(1, length, dtype=torch.long, device=model.device)
    with watch:
        model(ids)
        if declares(model, "cacheable") and is_causal(model):
            cache = model.new_cache(1, ids.shape[1])
            model(ids[:, :-1], cache)
            model(ids[:, -1:], cache)
