"""Text generation: loading a trained model, decoding, sampling, drafts, packed weights."""

from strawberry.generation.decode import sample_batch, sample_ids
from strawberry.generation.load import LoadedRun, as_trained, load_run
from strawberry.generation.sampling import Sampling
from strawberry.generation.text import generate, generate_batch, refuse_noncausal

__all__ = [
    "LoadedRun",
    "Sampling",
    "as_trained",
    "generate",
    "generate_batch",
    "load_run",
    "refuse_noncausal",
    "sample_batch",
    "sample_ids",
]
