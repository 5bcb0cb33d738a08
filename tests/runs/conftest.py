"""The fixtures of the tests of training."""

from tests.training.conftest import _quiet_machine, corpus, make_recipe, recipe_file

__all__ = ["_quiet_machine", "corpus", "make_recipe", "recipe_file"]
