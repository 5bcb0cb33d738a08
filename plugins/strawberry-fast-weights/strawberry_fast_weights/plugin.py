"""The manifest: what this plugin registers."""

from strawberry.plugin import Registrar, hookimpl

strawberry_api = ">=1,<2"


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register the weight source."""
    registry.weights("fast_weights", "strawberry_fast_weights.fast_weights:FastWeights")
