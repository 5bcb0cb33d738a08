"""What every trial imports, imported once: trials are forked from a process that has it."""

# ruff: noqa: F401 (imported to be there)
import torch._dynamo  # all of torch's optimizers import it, which takes a second

import strawberry.data
import strawberry.model.build
import strawberry.recipe.validate
import strawberry.train.loop
