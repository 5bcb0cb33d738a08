"""What tests of ladders share: the ablations' recipe and plugins, and a ladder over it."""

from tests.ablate.conftest import plugins, recipe_file
from tests.ladder.scripted import made

__all__ = ["made", "plugins", "recipe_file"]
