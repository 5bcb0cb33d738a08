"""What every trial imports, imported once: trials are forked from a process that has it."""

# ruff: noqa: F401 (imported to be there)
import strawberry.data
import strawberry.model.build
import strawberry.recipe.validate
import strawberry.train.loop
