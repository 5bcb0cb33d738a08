"""What tests of tuning share with those of ablations: the recipe and the plugins."""

from tests.ablate.conftest import plugins, recipe_file

__all__ = ["plugins", "recipe_file"]
