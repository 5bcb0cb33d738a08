"""Contracts for authors of components, and helpers.

Shapes, in all docstrings: B batch, T tokens, C model width (`n_embd`), V vocabulary, H heads, D
width of a head, E experts, K tokens of a sequence that run a routed step. Other letters are
explained by the module or class that uses them. A name such as `x_BHTD` has its shape in it.

A component's keyword-only parameters are its recipe fields; the builder passes the arguments before
them. Values of one *use* of a module (its cache, the positions, the recursion step) are in a `Use`,
never in an attribute, because a shared module has many uses in one pass.

A method `after_step()` of a module is called once after each optimizer step, however often the
module is used. It is for values that are learned without gradients.

A pass must not synchronise the host with an accelerator: it must not read a value (`.item()`,
`nonzero`, a mask as an index), or create a tensor of the device from a Python object. A module that
has to, because the data determine its shapes, declares the reason as a text `waits`.

Several processes (ranks) may share a batch; each has some of its sequences. Quantities of the whole
batch are computed with `all_reduce_sum(...)`; changes in `after_step()` must be equal on all ranks.

A name is imported on first access: data, tokenizers and executors come without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.contracts.collectives import (
        all_gather,
        all_reduce_max,
        all_reduce_sum,
        full_tensor,
        is_sharded,
        of_main,
        shard_like,
        to_local,
        world_size,
    )
    from strawberry.contracts.component import Component, Place, components, keeps_state
    from strawberry.contracts.data import (
        EVERY,
        IGNORED,
        SPLITS,
        TEST,
        Corpus,
        Dataset,
        DataSite,
        DataSource,
        Ids,
        Progress,
        Split,
        Task,
        TaskSite,
        TokenizerSource,
    )
    from strawberry.contracts.decay import Beta, Decay, DecayingSource, decay_groups
    from strawberry.contracts.embedding import (
        Embedding,
        EmbeddingSite,
        WrappedEmbedding,
        history,
        new_history,
    )
    from strawberry.contracts.execution import (
        FINISHED,
        STOPPED,
        Events,
        Executor,
        ExecutorSite,
        FinishedJob,
        Job,
    )
    from strawberry.contracts.looping import Inner, Loop, LoopSite
    from strawberry.contracts.mixing import FFN, Attention, Norm, Positional
    from strawberry.contracts.numbers import (
        draw,
        drawn,
        exact,
        has_values,
        hashed,
        wide,
        without_autocast,
    )
    from strawberry.contracts.objective import (
        Batch,
        HeadLoss,
        Learned,
        Objective,
        ObjectiveSite,
        OwnBlock,
        Prediction,
        Seen,
        States,
        Teacher,
    )
    from strawberry.contracts.parametrization import (
        Initial,
        Parametrization,
        ParametrizationSite,
        Role,
        StepScale,
        UpdateSize,
        Weight,
    )
    from strawberry.contracts.parts import Declared, MatrixLayout, MatrixRows, Unit, interleaved
    from strawberry.contracts.routing import Routed, Router, RouterSite
    from strawberry.contracts.running import (
        Averaging,
        Curriculum,
        ItemScores,
        Measure,
        MeasuredModel,
        RunSite,
        Settings,
        StopRun,
    )
    from strawberry.contracts.sites import NormSite, PositionalSite, Site
    from strawberry.contracts.stream import (
        Block,
        BlockSite,
        Join,
        JoinSite,
        Part,
        PerStep,
        Residual,
        ResidualSite,
        Stream,
        normed,
    )
    from strawberry.contracts.terms import Aux, Metric, Term, mean_terms, with_aux
    from strawberry.contracts.tokenizer import Tokenizer, checked_ids
    from strawberry.contracts.training import (
        Matrix,
        OptimizerSite,
        OptimizerSource,
        ParameterInfo,
        Schedule,
        ScheduleSite,
        Tracker,
        TrackerSite,
    )
    from strawberry.contracts.use import SharedKeys, State, Use, Watch
    from strawberry.contracts.weights import (
        Bank,
        Projection,
        ProjectionRequest,
        SourcedWeight,
        WeightSite,
        WeightSource,
    )

__all__ = [
    "EVERY",
    "FFN",
    "FINISHED",
    "IGNORED",
    "SPLITS",
    "STOPPED",
    "TEST",
    "Attention",
    "Aux",
    "Averaging",
    "Bank",
    "Batch",
    "Beta",
    "Block",
    "BlockSite",
    "Component",
    "Corpus",
    "Curriculum",
    "DataSite",
    "DataSource",
    "Dataset",
    "Decay",
    "DecayingSource",
    "Declared",
    "Embedding",
    "EmbeddingSite",
    "Events",
    "Executor",
    "ExecutorSite",
    "FinishedJob",
    "HeadLoss",
    "Ids",
    "Initial",
    "Inner",
    "ItemScores",
    "Job",
    "Join",
    "JoinSite",
    "Learned",
    "Loop",
    "LoopSite",
    "Matrix",
    "MatrixLayout",
    "MatrixRows",
    "Measure",
    "MeasuredModel",
    "Metric",
    "Norm",
    "NormSite",
    "Objective",
    "ObjectiveSite",
    "OptimizerSite",
    "OptimizerSource",
    "OwnBlock",
    "ParameterInfo",
    "Parametrization",
    "ParametrizationSite",
    "Part",
    "PerStep",
    "Place",
    "Positional",
    "PositionalSite",
    "Prediction",
    "Progress",
    "Projection",
    "ProjectionRequest",
    "Residual",
    "ResidualSite",
    "Role",
    "Routed",
    "Router",
    "RouterSite",
    "RunSite",
    "Schedule",
    "ScheduleSite",
    "Seen",
    "Settings",
    "SharedKeys",
    "Site",
    "SourcedWeight",
    "Split",
    "State",
    "States",
    "StepScale",
    "StopRun",
    "Stream",
    "Task",
    "TaskSite",
    "Teacher",
    "Term",
    "Tokenizer",
    "TokenizerSource",
    "Tracker",
    "TrackerSite",
    "Unit",
    "UpdateSize",
    "Use",
    "Watch",
    "Weight",
    "WeightSite",
    "WeightSource",
    "WrappedEmbedding",
    "all_gather",
    "all_reduce_max",
    "all_reduce_sum",
    "checked_ids",
    "components",
    "decay_groups",
    "draw",
    "drawn",
    "exact",
    "full_tensor",
    "has_values",
    "hashed",
    "history",
    "interleaved",
    "is_sharded",
    "keeps_state",
    "mean_terms",
    "new_history",
    "normed",
    "of_main",
    "shard_like",
    "to_local",
    "wide",
    "with_aux",
    "without_autocast",
    "world_size",
]

_MODULES = (
    "data", "execution", "tokenizer",  # without torch, and so first
    "component", "decay", "embedding", "looping", "mixing", "numbers", "objective",
    "parametrization", "parts",
    "collectives", "routing", "running", "sites", "stream", "terms", "training", "use", "weights",
)  # fmt: skip

__getattr__, __dir__ = lazily(__name__, __all__, _MODULES)
