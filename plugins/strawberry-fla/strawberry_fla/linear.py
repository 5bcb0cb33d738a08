"""fla's gated linear attention, DeltaNet and Gated DeltaNet.

Yang et al. 2023, arXiv 2312.06635; Yang et al. 2024, arXiv 2406.06484; Yang et al. 2024, arXiv
2412.06464. The layers are those of `fla.layers`, version 0.6.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from strawberry.contracts import Site
from strawberry.errors import FieldError
from strawberry_fla.mixer import FlaMixer, heads, whole

Mode = Literal["chunk", "fused_recurrent"]

WIDEST = 256
"""The widest keys of a head that the chunked delta rules take."""
RECURRENT_UP_TO = 64
"""Up to this many tokens the layers use the recurrent kernel, in any mode."""


class Convolved(FlaMixer):
    """A layer with a causal convolution over each of q, k and v; `conv` tokens, 0 for none.

    `keys` and `values` are their channels, of all heads together.
    """

    def __init__(self, name: str, *, conv: int, keys: int, values: int, **options: Any) -> None:
        super().__init__(name, use_short_conv=conv > 0, conv_size=conv or 4, **options)
        self.conv = conv
        self.tails = {"conv_q": keys, "conv_k": keys, "conv_v": values} if conv else {}


class GLA(Convolved):
    """Gated linear attention by fla's kernels: `S_t = a_t S_{t-1} + k_t^T v_t`, `o_t = q_t S_t`.

    Its matrices are fla's own, so the recipe's weight source has no say in them.

    Args:
        n_head: heads H.
        expand_k: width of all keys together, as a multiple of `n_embd`.
        expand_v: width of all values together, as a multiple of `n_embd`.
        mode: the kernel above 64 tokens; up to 64 it is `fused_recurrent` in any case.
        conv: tokens that a causal convolution over q, k and v sees; 0 for none.
        gate: the output gate.
        decay_rank: columns of the second matrix of the decay.
        decay_root: decays are sigmoids to the power of its inverse.
    """

    reads: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "gk_proj", "g_proj")
    writes: ClassVar[str] = "o_proj"
    elsewhere: ClassVar[str] = "attention `linear` with `rule: gla` is the same on any device"

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        expand_k: Annotated[float, Gt(0)] = 0.5,
        expand_v: Annotated[float, Gt(0)] = 1.0,
        mode: Mode = "chunk",
        conv: Annotated[int, Ge(0)] = 0,
        gate: bool = True,
        decay_rank: Annotated[int, Ge(1)] = 16,
        decay_root: Annotated[int, Ge(1)] = 16,
    ) -> None:
        keys = whole("expand_k", site.n_embd * expand_k)
        values = whole("expand_v", site.n_embd * expand_v)
        D, E = heads("expand_k", keys, n_head), heads("expand_v", values, n_head)
        check_conv(conv)
        super().__init__(
            "GatedLinearAttention",
            conv=conv,
            keys=keys,
            values=values,
            mode=mode,
            hidden_size=site.n_embd,
            expand_k=expand_k,
            expand_v=expand_v,
            num_heads=n_head,
            use_output_gate=gate,
            gate_low_rank_dim=decay_rank,
            gate_logit_normalizer=decay_root,
        )
        self.recurrent = (n_head, E, D)  # fla has values first here
        self.products = 4 * D * E * n_head


class DeltaNet(Convolved):
    """The delta rule by fla's kernels: what a key recalls is replaced.

    `S_t = S_{t-1} + b_t k_t^T (v_t - k_t S_{t-1})`, `o_t = q_t S_t`, with keys and queries of
    length 1. Its matrices are fla's own, so the recipe's weight source has no say in them.

    Args:
        n_head: heads H.
        expand_k: width of all keys together, as a multiple of `n_embd`.
        expand_v: width of all values together, as a multiple of `n_embd`.
        mode: the kernel above 64 tokens, where `chunk` computes in half precision alone; up to 64
            it is `fused_recurrent` in any case.
        conv: tokens that a causal convolution over q, k and v sees; 0 for none.
        gate: an output gate.
        negative: b goes to 2 rather than to 1, so that the state has negative eigenvalues too.
    """

    reads: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "b_proj", "g_proj")
    writes: ClassVar[str] = "o_proj"
    elsewhere: ClassVar[str] = "attention `linear` with `rule: delta` is the same on any device"

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        expand_k: Annotated[float, Gt(0)] = 1.0,
        expand_v: Annotated[float, Gt(0)] = 1.0,
        mode: Mode = "chunk",
        conv: Annotated[int, Ge(0)] = 4,
        gate: bool = False,
        negative: bool = False,
    ) -> None:
        keys = whole("expand_k", site.n_embd * expand_k)
        values = whole("expand_v", site.n_embd * expand_v)
        D, E = heads("expand_k", keys, n_head), heads("expand_v", values, n_head)
        check_conv(conv)
        check_width("expand_k", D)
        super().__init__(
            "DeltaNet",
            conv=conv,
            keys=keys,
            values=values,
            mode=mode,
            hidden_size=site.n_embd,
            expand_k=expand_k,
            expand_v=expand_v,
            num_heads=n_head,
            use_gate=gate,
            allow_neg_eigval=negative,
        )
        self.recurrent = (n_head, D, E)
        self.products = 6 * D * E * n_head
        self.half_from = RECURRENT_UP_TO + 1 if mode == "chunk" else None


class GatedDeltaNet(Convolved):
    """The delta rule with decay by fla's kernels, in chunks.

    `S_t = a_t S_{t-1} + b_t k_t^T (v_t - k_t a_t S_{t-1})`, `o_t = q_t S_t`, with keys and queries
    of length 1 and `a_t = exp(-A softplus(x W_a^T + c))` for each head. Its matrices are fla's own,
    so the recipe's weight source has no say in them.

    Args:
        n_head: heads H.
        head_dim: width of the keys of a head; null takes three quarters of `n_embd` for all heads
            together, as the paper does.
        expand_v: width of the values, as a multiple of the keys'.
        conv: tokens that a causal convolution over q, k and v sees; 0 for none.
        gate: the output gate.
        negative: b goes to 2 rather than to 1, so that the state has negative eigenvalues too.
    """

    reads: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "a_proj", "b_proj", "g_proj")
    writes: ClassVar[str] = "o_proj"
    elsewhere: ClassVar[str] = (
        "attention `linear` with `rule: gated_delta` is the same on any device"
    )

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        head_dim: Annotated[int, Ge(1)] | None = None,
        expand_v: Annotated[float, Gt(0)] = 2.0,
        conv: Annotated[int, Ge(0)] = 4,
        gate: bool = True,
        negative: bool = False,
    ) -> None:
        D = head_dim or heads("head_dim", whole("head_dim", 0.75 * site.n_embd), n_head)
        E = whole("expand_v", D * expand_v)
        check_conv(conv)
        check_width("head_dim", D)
        super().__init__(
            "GatedDeltaNet",
            conv=conv,
            keys=n_head * D,
            values=n_head * E,
            hidden_size=site.n_embd,
            expand_v=expand_v,
            head_dim=D,
            num_heads=n_head,
            use_gate=gate,
            allow_neg_eigval=negative,
        )
        self.recurrent = (n_head, E, D)  # fla has values first here
        self.products = 6 * D * E * n_head


def check_conv(conv: int) -> None:
    """FieldError for a convolution over one token, which mixes nothing."""
    if conv == 1:
        raise FieldError("conv", "must be 0 or at least 2, got 1: one token mixes nothing")


def check_width(field: str, width: int) -> None:
    """FieldError for keys that fla's chunked kernels can't take."""
    if width > WIDEST:
        raise FieldError(
            field, f"keys of a head are {width} wide; fla's chunked kernels take {WIDEST} at most"
        )
