"""Text generation: loading a trained model, decoding, sampling, drafts, packed weights."""

from strawberry.generation.decode import sample_batch, sample_ids
from strawberry.generation.load import LoadedRun, load_run
from strawberry.generation.sampling import Sampling
from strawberry.generation.text import generate, generate_batch

__all__ = [
    "LoadedRun",
    "Sampling",
    "generate",
    "generate_batch",
    "load_run",
    "sample_batch",
    "sample_ids",
]
