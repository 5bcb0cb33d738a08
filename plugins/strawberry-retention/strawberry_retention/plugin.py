"""The manifest: what this plugin registers."""

from strawberry.plugin import Registrar, hookimpl

strawberry_api = ">=1,<2"


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register the two layers."""
    here = "strawberry_retention"
    registry.attention("retained_2360c08", f"{here}.retained_2360c08:Retained2360c08")
    registry.attention("retained_fb0a8c9", f"{here}.retained_fb0a8c9:RetainedFb0a8c9")
