"""fla's Mamba2 (Dao and Gu 2024, arXiv 2405.21060), the layer of `fla.layers`, version 0.6."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from strawberry.contracts import MatrixLayout, Site
from strawberry.errors import FieldError
from strawberry_fla.mixer import FlaMixer, whole


class Mamba2(FlaMixer):
    """Mamba2 by fla: a state space with one decay for each head, a convolution, and a gate.

    `S_t = exp(-a d_t) S_{t-1} + d_t k_t^T v_t`, `o_t = q_t S_t`, with a learned rate a of each
    head, and a step d_t that follows from the token.

    Its matrices are fla's own, so the recipe's weight source does not apply to them. fla runs the
    kernels of the package mamba-ssm if that is installed, else plain torch around its own kernels.
    A stack of this layer alone, without an FFN, is the paper's model.

    Args:
        head_dim: width of a head; there are `expand * n_embd / head_dim` of them.
        expand: width of all heads together, as a multiple of `n_embd`.
        state: numbers that each channel keeps.
        groups: groups of heads, each with its own B and C.
        conv: tokens that the causal convolution sees.
        chunk: tokens that the parallel form takes at once.
    """

    reads: ClassVar[tuple[str, ...]] = ("in_proj",)
    writes: ClassVar[str] = "out_proj"
    elsewhere: ClassVar[str] = (
        "attention `linear` with `rule: gla`, `decay: head` and `conv: 4` is its nearest on any "
        "device"
    )
    single_step: ClassVar[bool] = True

    def __init__(
        self,
        site: Site,
        *,
        head_dim: Annotated[int, Ge(1)] = 64,
        expand: Annotated[float, Gt(0)] = 2.0,
        state: Annotated[int, Ge(1)] = 128,
        groups: Annotated[int, Ge(1)] = 1,
        conv: Annotated[int, Ge(2)] = 4,
        chunk: Annotated[int, Ge(1)] = 256,
    ) -> None:
        width = whole("expand", site.n_embd * expand)
        if width % head_dim:
            raise FieldError("head_dim", f"width {width} can't be split into heads of {head_dim}")
        n_head = width // head_dim
        if n_head % groups:
            raise FieldError("groups", f"{n_head} heads can't be split into {groups} groups")
        super().__init__(
            "Mamba2",
            head_dim=head_dim,
            hidden_size=site.n_embd,
            state_size=state,
            expand=expand,
            n_groups=groups,
            conv_kernel=conv,
            chunk_size=chunk,
        )
        own, shared = (n_head, head_dim), (groups, state)
        parts = MatrixLayout.of({"z": own, "x": own, "b": shared, "c": shared, "dt": n_head})
        self.parameter_parts = dict.fromkeys(("layer.in_proj.weight", "layer.in_proj.bias"), parts)
        self.recurrent = (n_head, head_dim, state)
        self.conv = conv
        self.tails = {"conv": width + 2 * groups * state}
        self.products = 4 * head_dim * state * n_head
