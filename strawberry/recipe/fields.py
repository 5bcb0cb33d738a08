"""The plain fields of a recipe's sections: their types, their defaults, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

Positive: TypeAlias = Annotated[int, Ge(1)]
Count: TypeAlias = Annotated[int, Ge(0)]
Share: TypeAlias = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class SeedFields:
    """Seeds of a part of what is random.

    Args:
        init_seed: seed of the initial weights; null takes the recipe's `seed`.
        data_seed: seed of the training rows; null takes the recipe's `seed`.
        dropout_seed: seed of dropout and other noise in training; null takes the recipe's `seed`.
    """

    init_seed: Annotated[int, Ge(0), Le(2**63 - 1)] | None = None
    data_seed: Annotated[int, Ge(0), Le(2**63 - 1)] | None = None
    dropout_seed: Annotated[int, Ge(0), Le(2**63 - 1)] | None = None


@dataclass(frozen=True, kw_only=True)
class RecurFields:
    """The plain fields of a `recur`.

    Args:
        sharing: the order of uses of blocks a b c over two steps: `cycle` (a b c a b c), `sequence`
            (a a b b c c), `middle_cycle` and `middle_sequence` (the first and the last once).
        keys: whether each step has keys and values of its `own`, or all use those of the `first`.
        step_embedding: a learned vector for each step is added to what enters it.
        step_norms: each step has norms of its own.
    """

    sharing: Literal["cycle", "sequence", "middle_cycle", "middle_sequence"] = "cycle"
    keys: Literal["own", "first"] = "own"
    step_embedding: bool = False
    step_norms: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelFields:
    """The plain fields of the `model` section.

    Args:
        vocab_size: number of token ids V.
        block_size: longest training sequence, in tokens.
        n_embd: model width C.
        tie_embeddings: whether the output head is the embedding table.
        embedding_norm: whether embeddings are normalised before the first block.
        dropout: probability, on embeddings, attention and what a block adds.
        bias: whether projections have biases.
        init: `fan_in` (uniform with deviation fan_in^-0.5) or `normal` (deviation init_std,
            smaller by sqrt(2 depth) where a projection writes to the residual stream).
        init_std: deviation for `normal`.
        zero_outputs: whether projections that write to the residual stream, and a head of its own,
            start at zero, so that every block begins as nothing (Zhang et al. 2019, arXiv
            1901.09321).
        logit_softcap: bound on logits by c * tanh(logit / c), or null.
        placement: where a block's parts are normalised: `pre` before, `post` after they have been
            added, `sandwich` before, and once more before they are added.
        residual: `sum` adds a part's output to what it read; `attention` lets each part read a
            learned mean of all outputs before it.
        residual_scale: what a part's output is multiplied by: a number, `depth` for one over the
            root of the number of parts, or `learned` for a gain for each channel.
    """

    vocab_size: Annotated[int, Ge(1), Le(1 << 30)]
    block_size: Annotated[int, Ge(1), Le(1 << 30)]
    n_embd: Annotated[int, Ge(1), Le(1 << 20)]
    tie_embeddings: bool = True
    embedding_norm: bool = False
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    bias: bool = False
    init: Literal["fan_in", "normal"] = "fan_in"
    init_std: Annotated[float, Gt(0)] = 0.02
    zero_outputs: bool = False
    logit_softcap: Annotated[float, Gt(0)] | None = None
    placement: Literal["pre", "post", "sandwich"] = "pre"
    residual: Literal["sum", "attention"] = "sum"
    residual_scale: Literal["depth", "learned"] | Annotated[float, Gt(0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainFields(SeedFields):
    """The `train` section; names are the original project's where it has one.

    Args:
        max_iters: optimizer steps.
        batch_size: sequences in a micro-batch, of all processes together.
        gradient_accumulation_steps: micro-batches in a step, which is the same for any division.
        eval_interval: steps between evaluations; 0 evaluates at the end alone.
        eval_iters: an evaluation has as many sequences as this many steps, and none twice.
        log_interval: steps between rows of metrics.jsonl.
        checkpoint_interval: steps between checkpoints; 0 saves at the end alone.
        keep_checkpoints: how many of the newest stay.
        keep_best: whether the one with the lowest val_loss stays too; it is saved when measured.
        on_nonfinite: what a loss or gradient that is not finite does: `stop` ends the run, `skip`
            leaves the update out, `back_off` goes to the newest checkpoint and on at half the rate.
        learning_rate: peak learning rate.
        warmup_iters: steps of linear warm-up.
        lr_decay_iters: steps until the schedule reaches min_lr; null takes max_iters.
        cooldown_frac: share of lr_decay_iters in which `trapezoid` decays.
        min_lr: learning rate at the end, at most the peak; null takes a tenth of the peak. An
            optimizer with an `lr` of its own ends at the same share of that.
        grad_clip: largest norm of the whole gradient; 0 does not clip.
        z_loss: weight of the mean squared logsumexp of the logits in the training loss.
        label_smoothing: share of a target's probability that is spread over the vocabulary.
        document_mask: whether tokens see their own document alone.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: `auto` (bfloat16 autocast on CUDA), `float32` or `bfloat16`.
        compile: `auto` compiles on CUDA; true compiles all below the head into one graph; `blocks`
            each block by itself, equal ones once, which takes a deep stack much less time.
        threads: CPU threads; null leaves torch's choice.
        parallel: how several processes share the model: by copies (`ddp`) or in shards (`fsdp`).
        checkpoint_activations: keep what enters each block alone, and compute the rest again.
        keep_memory: keep freed memory for the next step (glibc).
    """

    max_iters: Positive = 1000
    batch_size: Positive = 8
    gradient_accumulation_steps: Positive = 1
    eval_interval: Count = 250
    eval_iters: Positive = 20
    log_interval: Positive = 10
    checkpoint_interval: Count = 250
    keep_checkpoints: Positive = 3
    keep_best: bool = False
    on_nonfinite: Literal["stop", "skip", "back_off"] = "stop"
    learning_rate: Annotated[float, Gt(0)] = 3e-3
    warmup_iters: Count = 100
    lr_decay_iters: Positive | None = None
    cooldown_frac: Share = 0.4
    min_lr: Annotated[float, Ge(0)] | None = None
    grad_clip: Annotated[float, Ge(0)] = 1.0
    z_loss: Annotated[float, Ge(0)] = 0.0
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    document_mask: bool = False
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "blocks"] | bool = "auto"
    threads: Positive | None = None
    parallel: Literal["ddp", "fsdp"] = "ddp"
    checkpoint_activations: bool = False
    keep_memory: bool = True
