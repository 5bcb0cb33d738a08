"""What tests of ladders share: the ablations' recipe and plugins."""

from tests.ablate.conftest import plugins, recipe_file

__all__ = ["plugins", "recipe_file"]
