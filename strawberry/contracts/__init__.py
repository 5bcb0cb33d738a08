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
        all_gather as all_gather,
        all_reduce_max as all_reduce_max,
        all_reduce_sum as all_reduce_sum,
        full_tensor as full_tensor,
        is_sharded as is_sharded,
        of_main as of_main,
        shard_like as shard_like,
        to_local as to_local,
        world_size as world_size,
    )
    from strawberry.contracts.component import (
        Component as Component,
        Place as Place,
        components as components,
        keeps_state as keeps_state,
    )
    from strawberry.contracts.data import (
        EVERY as EVERY,
        IGNORED as IGNORED,
        SPLITS as SPLITS,
        TEST as TEST,
        Corpus as Corpus,
        Dataset as Dataset,
        DataSite as DataSite,
        DataSource as DataSource,
        Ids as Ids,
        Progress as Progress,
        Split as Split,
        Task as Task,
        TaskSite as TaskSite,
        TokenizerSource as TokenizerSource,
    )
    from strawberry.contracts.decay import (
        Beta as Beta,
        Decay as Decay,
        DecayingSource as DecayingSource,
        decay_groups as decay_groups,
    )
    from strawberry.contracts.embedding import (
        Embedding as Embedding,
        EmbeddingSite as EmbeddingSite,
        WrappedEmbedding as WrappedEmbedding,
        history as history,
        new_history as new_history,
    )
    from strawberry.contracts.execution import (
        FINISHED as FINISHED,
        STOPPED as STOPPED,
        Events as Events,
        Executor as Executor,
        ExecutorSite as ExecutorSite,
        FinishedJob as FinishedJob,
        Job as Job,
    )
    from strawberry.contracts.looping import Inner as Inner, Loop as Loop, LoopSite as LoopSite
    from strawberry.contracts.mixing import (
        FFN as FFN,
        Attention as Attention,
        Norm as Norm,
        Positional as Positional,
    )
    from strawberry.contracts.numbers import (
        draw as draw,
        drawn as drawn,
        exact as exact,
        has_values as has_values,
        hashed as hashed,
        wide as wide,
        without_autocast as without_autocast,
    )
    from strawberry.contracts.objective import (
        Batch as Batch,
        HeadLoss as HeadLoss,
        Learned as Learned,
        Objective as Objective,
        ObjectiveSite as ObjectiveSite,
        OwnBlock as OwnBlock,
        Prediction as Prediction,
        Seen as Seen,
        States as States,
        Teacher as Teacher,
    )
    from strawberry.contracts.parametrization import (
        Initial as Initial,
        Parametrization as Parametrization,
        ParametrizationSite as ParametrizationSite,
        Role as Role,
        StepScale as StepScale,
        UpdateSize as UpdateSize,
        Weight as Weight,
    )
    from strawberry.contracts.parts import (
        Declared as Declared,
        MatrixLayout as MatrixLayout,
        MatrixRows as MatrixRows,
        Unit as Unit,
        interleaved as interleaved,
    )
    from strawberry.contracts.routing import (
        Routed as Routed,
        Router as Router,
        RouterSite as RouterSite,
    )
    from strawberry.contracts.running import (
        Averaging as Averaging,
        Curriculum as Curriculum,
        ItemScores as ItemScores,
        Measure as Measure,
        MeasuredModel as MeasuredModel,
        RunSite as RunSite,
        Settings as Settings,
        StopRun as StopRun,
    )
    from strawberry.contracts.sites import (
        NormSite as NormSite,
        PositionalSite as PositionalSite,
        Site as Site,
    )
    from strawberry.contracts.stream import (
        Block as Block,
        BlockSite as BlockSite,
        Join as Join,
        JoinSite as JoinSite,
        Part as Part,
        PerStep as PerStep,
        Residual as Residual,
        ResidualSite as ResidualSite,
        Stream as Stream,
        normed as normed,
    )
    from strawberry.contracts.terms import (
        Aux as Aux,
        Metric as Metric,
        Term as Term,
        mean_terms as mean_terms,
        with_aux as with_aux,
    )
    from strawberry.contracts.tokenizer import Tokenizer as Tokenizer, checked_ids as checked_ids
    from strawberry.contracts.training import (
        Matrix as Matrix,
        OptimizerSite as OptimizerSite,
        OptimizerSource as OptimizerSource,
        ParameterInfo as ParameterInfo,
        Schedule as Schedule,
        ScheduleSite as ScheduleSite,
        Tracker as Tracker,
        TrackerSite as TrackerSite,
    )
    from strawberry.contracts.use import (
        SharedKeys as SharedKeys,
        State as State,
        Use as Use,
        Watch as Watch,
    )
    from strawberry.contracts.weights import (
        Bank as Bank,
        Projection as Projection,
        ProjectionRequest as ProjectionRequest,
        SourcedWeight as SourcedWeight,
        WeightSite as WeightSite,
        WeightSource as WeightSource,
    )

__all__, __getattr__, __dir__ = lazily(__name__, __file__)
