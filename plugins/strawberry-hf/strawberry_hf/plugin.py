"""The manifest: what this plugin registers."""

from strawberry.plugin import Registrar, hookimpl

strawberry_api = ">=1,<2"


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register the data source, and the command `strawberry hf`."""
    registry.data("datasets", "strawberry_hf.data:Datasets")
    registry.command("hf", "strawberry_hf.cli:command", "Exchange checkpoints with transformers.")
