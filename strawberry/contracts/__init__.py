"""All that an author of a component has to know: contracts, and helpers for what they ask.

Shapes: B batch, T tokens, C model width (`n_embd`), V vocabulary, H heads, D width of a head.

A component's keyword-only parameters are its recipe fields; what comes before them is handed over
by the builder. What belongs to one *use* of a module (its cache, the positions, the recursion
step) arrives in a `Use`, never as an attribute: a shared module is used many times in one pass.

A module with a method `after_step()` has it called after each optimizer step, once however often
the module is used: the place for what is learned by other means than gradients.

A pass must not make the host wait for an accelerator: no value is read (`.item()`, `nonzero`, a
mask as an index), nothing that Python holds is made a tensor of the device. A module that can't do
without, since the data decide its shapes, says why in a text `waits`.

Where several processes (ranks) share a batch, each has some of its sequences. What depends on all
of them is computed from `summed(...)`; what `after_step()` changes has to be alike on all.

A name is imported when it is first asked for: those of data, tokenizers and executors come without
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.lazily import lazily

if TYPE_CHECKING:
    from strawberry.contracts.collectives import (
        gathered,
        is_shard,
        largest,
        local,
        placed_like,
        ranks,
        summed,
        whole,
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
        Tokenizer,
        TokenizerSource,
    )
    from strawberry.contracts.decay import Beta, Decay, DecayingSource, decay_groups
    from strawberry.contracts.execution import (
        FINISHED,
        STOPPED,
        Events,
        Executor,
        ExecutorSite,
        FinishedJob,
        Job,
    )
    from strawberry.contracts.ids import checked_ids
    from strawberry.contracts.mixing import FFN, Attention, Norm, Positional
    from strawberry.contracts.numbers import (
        draw,
        drawn,
        exact,
        has_values,
        wide,
        without_autocast,
    )
    from strawberry.contracts.parts import Declared, MatrixLayout, MatrixRows, Unit, interleaved
    from strawberry.contracts.routing import Routed, Router, RouterSite
    from strawberry.contracts.sites import InitialScale, NormSite, PositionalSite, Site
    from strawberry.contracts.terms import Aux, Metric, Term, mean_terms, with_aux
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
    from strawberry.contracts.use import SharedKeys, State, Use
    from strawberry.contracts.weights import (
        Bank,
        Projection,
        ProjectionRequest,
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
    "Bank",
    "Beta",
    "Component",
    "Corpus",
    "DataSite",
    "DataSource",
    "Dataset",
    "Decay",
    "DecayingSource",
    "Declared",
    "Events",
    "Executor",
    "ExecutorSite",
    "FinishedJob",
    "Ids",
    "InitialScale",
    "Job",
    "Matrix",
    "MatrixLayout",
    "MatrixRows",
    "Metric",
    "Norm",
    "NormSite",
    "OptimizerSite",
    "OptimizerSource",
    "ParameterInfo",
    "Place",
    "Positional",
    "PositionalSite",
    "Progress",
    "Projection",
    "ProjectionRequest",
    "Routed",
    "Router",
    "RouterSite",
    "Schedule",
    "ScheduleSite",
    "SharedKeys",
    "Site",
    "Split",
    "State",
    "Task",
    "TaskSite",
    "Term",
    "Tokenizer",
    "TokenizerSource",
    "Tracker",
    "TrackerSite",
    "Unit",
    "Use",
    "WeightSite",
    "WeightSource",
    "checked_ids",
    "components",
    "decay_groups",
    "draw",
    "drawn",
    "exact",
    "gathered",
    "has_values",
    "interleaved",
    "is_shard",
    "keeps_state",
    "largest",
    "local",
    "mean_terms",
    "placed_like",
    "ranks",
    "summed",
    "whole",
    "wide",
    "with_aux",
    "without_autocast",
]

_MODULES = (
    "data", "execution", "ids",  # without torch, and so first
    "component", "decay", "mixing", "numbers", "parts", "collectives", "routing", "sites", "terms",
    "training", "use", "weights",
)  # fmt: skip

__getattr__, __dir__ = lazily(__name__, __all__, _MODULES)
