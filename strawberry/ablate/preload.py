"""Modules that every trial imports; trials are forked from a process that has imported them."""

# ruff: noqa: F401 (imported to be there)
import signal

import strawberry.data
import strawberry.model.build
import strawberry.recipe.validate
import strawberry.training.loop
from strawberry.stopping import PATIENT

# An executor tells each trial to stop; a trial handles these signals again (worker.child).
for number in PATIENT:
    signal.signal(number, signal.SIG_IGN)
