"""The manifest: what this plugin registers."""

from strawberry.plugin import Registrar, hookimpl

strawberry_api = ">=1,<2"


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register the four mixers."""
    registry.attention("gla", "strawberry_fla.linear:GLA")
    registry.attention("delta_net", "strawberry_fla.linear:DeltaNet")
    registry.attention("gated_delta_net", "strawberry_fla.linear:GatedDeltaNet")
    registry.attention("mamba2", "strawberry_fla.mamba2:Mamba2")
