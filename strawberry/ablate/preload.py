"""What every trial imports, imported once: trials are forked from a process that has it."""

import strawberry.data
import strawberry.model.build
import strawberry.recipe.validate
import strawberry.train.loop  # noqa: F401
