"""Plain fields of a recipe's sections: types, defaults and meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

Positive: TypeAlias = Annotated[int, Ge(1)]
Count: TypeAlias = Annotated[int, Ge(0)]
Share: TypeAlias = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class SeedFields:
    """Seeds of single sources of randomness.

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
        keys: `own` gives each step its own keys and values; with `first` all steps use those of the
            first.
        step_embedding: add a learned vector for each step to its input.
        step_norms: give each step its own norms.
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
        tie_embeddings: use the embedding table as the output head.
        embedding_norm: normalise embeddings before the first block.
        dropout: probability, on embeddings, attention and the outputs of a block's parts.
        bias: give projections biases.
        logit_softcap: bound c on logits, by c * tanh(logit / c); null for none.
    """

    vocab_size: Annotated[int, Ge(1), Le(1 << 30)]
    block_size: Annotated[int, Ge(1), Le(1 << 30)]
    n_embd: Annotated[int, Ge(1), Le(1 << 20)]
    tie_embeddings: bool = True
    embedding_norm: bool = False
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    bias: bool = False
    logit_softcap: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainFields(SeedFields):
    """The `train` section; names are the original project's where it has them.

    Args:
        max_iters: optimizer steps.
        batch_size: sequences of a micro-batch, over all processes.
        gradient_accumulation_steps: micro-batches in a step; the step is the same for any division.
        eval_interval: steps between evaluations; 0 evaluates only at the end.
        eval_iters: evaluate as many sequences as this many training steps use, each once.
        log_interval: steps between rows of metrics.jsonl.
        checkpoint_interval: steps between checkpoints; 0 saves only at the end.
        checkpoint_steps: further steps after which a checkpoint is saved; these are kept in any
            case, such as to fork several runs from the stable part of one.
        keep_checkpoints: number of newest checkpoints to keep.
        keep_best: also keep the checkpoint with the lowest val_loss; it is saved when measured.
        on_nonfinite: reaction to a non-finite loss or gradient: `stop` ends the run; `skip` skips
            the update; `back_off` returns to the newest checkpoint and continues at half the
            learning rate.
        learning_rate: peak learning rate.
        warmup_iters: steps of linear warm-up.
        lr_decay_iters: steps until the schedule reaches min_lr; null takes max_iters.
        cooldown_frac: fraction of lr_decay_iters in which `wsd` and `trapezoid` decay.
        min_lr: learning rate at the end, at most the peak; null takes a tenth of the peak. An
            optimizer with an `lr` of its own ends at the same share of that.
        grad_clip: maximum norm of the whole gradient; 0 disables clipping.
        document_mask: restrict attention to the token's own document.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: `auto` (bfloat16 autocast on CUDA), `float32` or `bfloat16`.
        compile: `auto` compiles on CUDA; true compiles everything below the head into one graph;
            `blocks` compiles each block by itself, equal ones once, which takes much less time for
            a deep stack.
        threads: number of CPU threads; null leaves torch's choice.
        parallel: how several processes share the model: copies (`ddp`) or shards (`fsdp`).
        checkpoint_activations: keep only the inputs of blocks, and recompute other activations in
            the backward pass.
        keep_memory: keep freed memory for the next step (glibc).
    """

    max_iters: Positive = 1000
    batch_size: Positive = 8
    gradient_accumulation_steps: Positive = 1
    eval_interval: Count = 250
    eval_iters: Positive = 20
    log_interval: Positive = 10
    checkpoint_interval: Count = 250
    checkpoint_steps: tuple[Positive, ...] = ()
    keep_checkpoints: Positive = 3
    keep_best: bool = False
    on_nonfinite: Literal["stop", "skip", "back_off"] = "stop"
    learning_rate: Annotated[float, Gt(0)] = 3e-3
    warmup_iters: Count = 100
    lr_decay_iters: Positive | None = None
    cooldown_frac: Share = 0.4
    min_lr: Annotated[float, Ge(0)] | None = None
    grad_clip: Annotated[float, Ge(0)] = 1.0
    document_mask: bool = False
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "blocks"] | bool = "auto"
    threads: Positive | None = None
    parallel: Literal["ddp", "fsdp"] = "ddp"
    checkpoint_activations: bool = False
    keep_memory: bool = True
