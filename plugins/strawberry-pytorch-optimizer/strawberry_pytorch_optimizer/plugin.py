"""The manifest: what this plugin registers."""

from strawberry.plugin import Registrar, hookimpl

strawberry_api = ">=1,<2"

OPTIMIZERS = {
    "adan": "Adan",
    "ademamix": "AdEMAMix",
    "adopt": "ADOPT",
    "came": "CAME",
    "prodigy": "Prodigy",
    "psgd": "PSGD",
    "soap": "SOAP",
}


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register each optimizer, a file each."""
    for name, cls in OPTIMIZERS.items():
        registry.optimizer(name, f"strawberry_pytorch_optimizer.{name}:{cls}")
