"""Sites: the arguments of a model's modules when they are built.

Every component is constructed with `(site, *, fields)`: the site describes its place, the fields
are its recipe's. These are the sites of a model's parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from strawberry.contracts.parametrization import Initial, Parametrization
from strawberry.contracts.parts import Declared, MatrixLayout

if TYPE_CHECKING:
    from strawberry.contracts.mixing import Norm, Positional
    from strawberry.contracts.weights import Bank, Projection, ProjectionRequest, WeightSource


@dataclass(frozen=True, slots=True)
class NormSite:
    """The site of a normalisation.

    Attributes:
        features: width of the normalised dimension.
        depth: unrolled depth of the whole model, in blocks.
        block: number of its block; None outside blocks. Numbered as in `Site`.
        steps: recursion steps of each enclosing `recur`, outermost first.
        role: its purpose: `attention` before the attention of a block, `attention.q` inside it,
            `embedding`, `head`.
    """

    features: int
    depth: int = 1
    block: int | None = None
    steps: tuple[int, ...] = ()
    role: str = ""


@dataclass(frozen=True, slots=True)
class PositionalSite:
    """The site of a positional component.

    Attributes:
        n_embd: model width C.
        block_size: longest training sequence, in tokens.
        block: number of the block that owns it; None for the model's.
    """

    n_embd: int
    block_size: int
    block: int | None = None


MakeInitial: TypeAlias = Callable[[str, str, int, int, bool], Initial]
"""The start of a matrix, from its name, kind, rows, columns, and whether it is an output."""

Wrap: TypeAlias = "Callable[[str, Projection], Projection]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The site of a block's part, with factories for its modules.

    Attributes:
        n_embd: model width C.
        vocab_size: number of token ids V.
        block_size: longest training sequence, in tokens.
        dropout: the recipe's dropout probability; the block drops residual outputs itself.
        bias: the recipe's choice of additive biases.
        depth: unrolled depth of the whole model, in blocks.
        block: number of its block, from 0, in the order of construction; a recurring block is one.
        steps: recursion steps of each enclosing `recur`, outermost first; empty outside recursions.
        role: its purpose, from the block inwards: `attention`, `ffn`, `attention.ffn`.
        positional: the current positional component.
        weights: the current weight source, which `projection` and `bank` use.
        parametrization: how tensors start and are stepped.
        make_initial: the start of a matrix, for `projection` and `bank`.
        make_norm: creates the recipe's normalisation, for `norm`.
        make_component: builds a nested component, for `component`.
        wraps: wrappers of each projection, innermost first; see `wrapped`.
    """

    n_embd: int
    vocab_size: int
    block_size: int
    dropout: float
    bias: bool
    depth: int
    block: int
    steps: tuple[int, ...]
    role: str
    positional: Positional
    weights: WeightSource
    parametrization: Parametrization
    make_initial: MakeInitial
    make_norm: Callable[[NormSite], Norm]
    make_component: Callable[[Any, Site], Any]
    wraps: tuple[Wrap, ...] = field(default=())

    def projection(
        self,
        name: str,
        out_features: int,
        in_features: int,
        *,
        output: bool = False,
        bias: bool | None = None,
        parts: Declared | MatrixLayout | None = None,
    ) -> Projection:
        """A matrix (out_features, in_features) from the current weight source.

        Args:
            name: the component's name for it, such as `qkv`.
            out_features: rows.
            in_features: columns.
            output: True if it writes to the residual stream; such matrices start smaller.
            bias: True for an additive bias; None takes the recipe's choice.
            parts: the matrices among its rows, if several: `{"q": 64, "k": 64}`, with heads
                `{"q": (4, 16), "k": (4, 16)}`, or `interleaved(...)`.

        Raises:
            ValueError: the sizes or the parts are impossible.
            FieldError: the weight source can't provide it.
        """
        from strawberry.contracts.weights import Multiplied

        biased = self.bias if bias is None else bias
        request = self._request("matrix", name, out_features, in_features, output, biased, parts)
        projection = self.weights.projection(request)
        if request.multiplier != 1:
            projection = Multiplied(projection)
        for wrap in self.wraps:
            projection = wrap(name, projection)
        return projection

    def bank(
        self,
        name: str,
        experts: int,
        out_features: int,
        in_features: int,
        *,
        active: float | None = None,
        output: bool = False,
        parts: Declared | MatrixLayout | None = None,
    ) -> Bank:
        """A stack of `experts` such matrices, without biases; raises as `projection` does.

        `active` is the mean number of these experts that process a token; None means all.
        """
        request = self._request("bank", name, out_features, in_features, output, False, parts)
        bank = self.weights.bank(replace(request, experts=experts))
        if active is not None:
            bank.active_share = min(1.0, active / experts)
        return bank

    def norm(self, features: int, role: str = "") -> Norm:
        """The recipe's normalisation over the last `features` numbers, such as for a QK-norm."""
        role = ".".join(filter(None, (self.role, role)))
        return self.make_norm(NormSite(features, self.depth, self.block, self.steps, role))

    def component(self, spec: Any) -> Any:
        """Build a nested component: the value of a field declared with `Kind(...)`."""
        return self.make_component(spec, replace(self, role=f"{self.role}.{spec.kind}".lstrip(".")))

    def wrapped(self, wrap: Wrap) -> Self:
        """The same site, with `wrap(name, projection)` in place of each projection.

        It may return the projection itself, or a `Projection` around it, for example with a
        convolution.
        """
        return replace(self, wraps=(*self.wraps, wrap))

    def _request(
        self,
        kind: str,
        name: str,
        out_features: int,
        in_features: int,
        output: bool,
        bias: bool,
        parts: Declared | MatrixLayout | None,
    ) -> ProjectionRequest:
        from strawberry.contracts.weights import ProjectionRequest

        if out_features < 1 or in_features < 1:
            raise ValueError(f"its matrix {name} would be {out_features} x {in_features}")
        inside = MatrixLayout.of(parts if parts is not None else {name: out_features})
        if inside.rows != out_features:
            message = f"its matrix {name} has {out_features} rows, but its parts have {inside.rows}"
            raise ValueError(message)
        path = f"{self.role}.{name}"
        initial = self.make_initial(path, kind, out_features, in_features, output)
        return ProjectionRequest(
            block=self.block,
            name=path,
            out_features=out_features,
            in_features=in_features,
            bias=bias,
            std=initial.std,
            uniform=initial.uniform,
            parts=inside,
            multiplier=initial.multiplier,
        )
